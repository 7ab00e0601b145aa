"""A service is killed twice while a client calls it.  The client's right never changes."""

import machport


def serve(port: machport.ReceiveRight, generation: int) -> None:
    for request in port:
        if request.expects_reply:
            request.reply(b"%d" % generation)


def ask(service: machport.SendRight, news: machport.SendRight) -> None:
    heard = 0
    while heard < 3:
        try:
            generation = int(service.call().body)
        except machport.ServerDied:
            if service.is_dead():
                raise  # no successor has the port, nor ever will
            continue  # the server was killed with this request in its hands: ask again
        if generation > heard:
            heard = generation
            news.send(b"answered by server %d" % heard)


def main() -> None:
    with machport.Task() as task:
        port, back, news = task.allocate(), task.allocate(), task.allocate()
        client = task.spawn(ask, port.make_send().move(), news.make_send().move())

        for generation in (1, 2, 3):
            port.request_port_destroyed(back)  # before the port is moved away
            server = task.spawn(serve, port.move(), generation)
            print(news.receive().body.decode())
            server.kill()
            notice = back.receive()
            assert isinstance(notice, machport.PortDestroyedNotification)
            port = notice.right  # the same port, with the requests that wait in it, and all its senders
        print("the client ended with", client.join())


if __name__ == "__main__":
    main()
