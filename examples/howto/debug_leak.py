"""A server keeps what it should have closed.  A world without a daemon says what is left, and where it came from."""

import machport
from machport import testing


def serve(port: machport.ReceiveRight, subscribers: list[machport.Right | None]) -> None:
    for request in port:
        if request.body == b"subscribe":
            subscribers += request.rights
        request.reply()


def main() -> None:
    with testing.World() as world:
        task = world.task("client")
        subscribers: list[machport.Right | None] = []
        port = task.allocate()
        server = port.make_send()
        world.process(serve, port.move(), subscribers, label="server", daemon=True)

        news = task.allocate()
        server.call(b"subscribe", rights=[news.make_send().move()])
        server.close()  # the client goes, and so does its port
        news.close()
        for held in world.leaks():
            print(held.task, "holds a", held.kind)


if __name__ == "__main__":
    main()
