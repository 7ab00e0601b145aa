"""The death of a port arrives as a message, among other messages."""

import machport


def work(port: machport.ReceiveRight) -> None:
    for request in port:
        request.reply(request.body.upper())


def main() -> None:
    with machport.Task() as task:
        port, news = task.allocate(), task.allocate()
        worker = port.make_send()
        worker.request_dead_name(news)
        child = task.spawn(work, port.move())
        print(worker.call(b"hello").body)

        child.kill()
        with news.receive() as message:
            match message:
                case machport.DeadNameNotification() if message.name == worker.name:
                    print("the worker's port is dead; its process ended with", child.join())


if __name__ == "__main__":
    main()
