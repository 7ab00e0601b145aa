"""A call to a server that is killed fails at once, and its death arrives as a message."""

import machport


def serve(port: machport.ReceiveRight) -> None:  # a process that holds this one right and nothing else
    for request in port:
        request.reply(request.body.upper())


def main() -> None:
    with machport.Task() as task:  # joins this user's daemon; starts it if there is none
        port, deaths = task.allocate(), task.allocate()
        upper = port.make_send()
        upper.request_dead_name(deaths)
        child = task.spawn(serve, port.move())  # the receive right leaves this task

        print(upper.call(b"hello", timeout=10).body)
        child.kill()
        try:
            upper.call(b"again")  # never hangs
        except machport.ServerDied:
            print("ServerDied, and no waiting")
        print(type(deaths.receive(timeout=10)).__name__, "and the process ended with", child.join())


if __name__ == "__main__":
    main()
