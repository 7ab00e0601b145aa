"""A live service is handed from a killed process to its successor, with the requests that wait."""

import machport


def serve(port: machport.ReceiveRight, generation: int) -> None:
    for request in port:
        if isinstance(request, machport.Notification):
            continue
        request.reply(b"%s, by server %d" % (request.body, generation))


def main() -> None:
    with machport.Task() as task:
        port, back, answers = task.allocate(), task.allocate(), task.allocate()
        service = port.make_send()  # what clients hold; it never changes

        port.request_port_destroyed(back)  # before it is moved away
        first = task.spawn(serve, port.move(), 1)
        print(service.call(b"hello").body)

        first.kill()
        notice = back.receive()  # the same port, with its queue and its senders
        assert isinstance(notice, machport.PortDestroyedNotification)
        for question in (b"one", b"two"):
            service.send(question, reply_to=answers)  # nobody serves now, and nothing is lost
        print("waiting:", notice.right.status().msgcount)

        notice.right.request_port_destroyed(back)  # a request is used up by coming true
        task.spawn(serve, notice.right.move(), 2)
        for _ in range(2):
            print(answers.receive().body)


if __name__ == "__main__":
    main()
