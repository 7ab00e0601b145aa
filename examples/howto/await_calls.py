"""One thread serves a port and calls two workers at the same time, and gives up the one that is too slow."""

import asyncio
import signal

import machport
from machport import aio


def work(port: aio.ReceiveRight) -> None:
    asyncio.run(port.serve(lambda request: request.body.upper()))  # its rights are of the kind of the parent's


def sleep(port: aio.ReceiveRight) -> None:
    signal.pause()  # has the port, and never looks


async def main() -> None:
    with aio.Task() as task:
        ports = [task.allocate() for _ in range(2)]
        quick, slow = (port.make_send() for port in ports)
        children = [task.spawn(function, port.move()) for function, port in zip((work, sleep), ports, strict=True)]

        answer, failure = await asyncio.gather(
            quick.call(b"hello"), asyncio.wait_for(slow.call(b"hello"), 0.5), return_exceptions=True
        )
        print(answer.body if isinstance(answer, machport.Message) else answer, type(failure).__name__)

        children[1].kill()
        await slow.dead()
        print("the slow one is dead")
        for child in children:
            child.close()


if __name__ == "__main__":
    asyncio.run(main())
