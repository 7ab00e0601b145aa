"""A server begins long jobs, and cancels the one whose client has died."""

import machport


def serve(port: machport.ReceiveRight, news: machport.SendRight) -> None:
    jobs: dict[int, machport.Message] = {}
    for message in port:
        match message:
            case machport.DeadNameNotification():
                with message:  # the name that it tells of can be used for other rights once it is given back
                    job = jobs.pop(message.name)
                    news.send(b"cancelled: " + job.body)
                    job.close()
            case _:
                right = message.reply_right  # whoever asked is at the other end of it
                assert right is not None
                right.request_dead_name(port)
                jobs[right.name] = message
                news.send(b"begun: " + message.body)


def ask(server: machport.SendRight, job: bytes) -> None:
    server.call(job)


def main() -> None:
    with machport.Task() as task:
        port, news = task.allocate(), task.allocate()
        server = port.make_send()
        task.spawn(serve, port.move(), news.make_send().move())

        client = task.spawn(ask, server.copy(), b"a film")
        print(news.receive().body)
        client.kill()
        print(news.receive().body)


if __name__ == "__main__":
    main()
