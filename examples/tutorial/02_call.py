"""A request to another process, and its answer."""

import machport


def work(port: machport.ReceiveRight) -> None:
    for request in port:
        request.reply(request.body.upper())


def main() -> None:
    with machport.Task() as task:
        port = task.allocate()
        worker = port.make_send()
        task.spawn(work, port.move())

        print(worker.call(b"hello").body)


if __name__ == "__main__":
    main()
