"""A worker is told when nobody can call it any more, and ends."""

import machport


def work(port: machport.ReceiveRight) -> None:
    port.request_no_senders(port)
    for message in port:
        match message:
            case machport.NoSendersNotification():
                print("nobody can call me any more", flush=True)
                port.close()
            case _:
                message.reply(message.body.upper())


def ask(worker: machport.SendRight) -> None:
    worker.call(b"hello")


def main() -> None:
    with machport.Task() as task:
        port = task.allocate()
        with port.make_send() as right:
            client = task.spawn(ask, right.copy())
            child = task.spawn(work, port.move())
            print("the client ended with", client.join(), flush=True)
        print("the worker ended with", child.join())


if __name__ == "__main__":
    main()
