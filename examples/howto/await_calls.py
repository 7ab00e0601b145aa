"""One thread asks two workers at the same time, and gives up the one that is too slow."""

import asyncio
import signal

import machport
from machport import aio


async def work(port: aio.ReceiveRight) -> None:  # run by asyncio.run, and its rights are awaited
    async for request in port:
        request.reply(type(port).__module__.encode())


def stall(port: machport.ReceiveRight) -> None:  # an ordinary function gets ordinary rights
    port.receive().reply(type(port).__module__.encode())
    signal.pause()  # has the port, and never looks again


async def main() -> None:
    with aio.Task() as task:
        ports = [task.allocate() for _ in range(2)]
        quick, slow = (port.make_send() for port in ports)
        worker, stalled = task.spawn(work, ports[0].move()), task.spawn(stall, ports[1].move())

        for answer in await asyncio.gather(quick.call(), slow.call()):
            print(answer.body.decode())
        again, failure = await asyncio.gather(quick.call(), asyncio.wait_for(slow.call(), 0.5), return_exceptions=True)
        print(type(again).__name__, type(failure).__name__)

        stalled.kill()
        await slow.dead()
        print("the slow one is dead")
        for child in (worker, stalled):
            child.close()


if __name__ == "__main__":
    asyncio.run(main())
