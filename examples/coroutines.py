"""A server and many clients in one event loop, and a process that is killed while coroutines wait for it."""

import asyncio

import machport


def serve(port: machport.ReceiveRight) -> None:  # another process, in ordinary code
    for request in port:
        request.reply(request.body.upper())


async def answer(port: machport.aio.ReceiveRight) -> None:
    async for request in port:  # a coroutine that is cancelled here has taken nothing
        request.reply(request.body[::-1])


async def main() -> None:
    with machport.aio.Task() as task:
        port, other = task.allocate(), task.allocate()
        turn, upper = port.make_send(), other.make_send()
        answers = asyncio.create_task(answer(port))
        child = task.spawn(serve, other.move())

        replies = await asyncio.gather(turn.call(b"abc"), upper.call(b"abc"), turn.call(b"xyz"))
        print([reply.body for reply in replies])

        upper.on_dead_name(lambda notice: print("told of a death"))
        child.kill()  # SIGKILL
        await upper.dead()
        try:
            async with asyncio.timeout(10):
                await upper.call(b"again")
        except machport.ServerDied as error:
            print("nobody had received it:", error.retry_safe)
        answers.cancel()


if __name__ == "__main__":
    asyncio.run(main())
