"""Orders are booked by a server that is killed twice.  No order is lost, and none is booked twice."""

import os
import signal
import tempfile

import machport


def book(port: machport.ReceiveRight, ledger: str, dies_at: bytes) -> None:
    for request in port:
        if not request.expects_reply:
            continue
        with open(ledger, "r+b") as booked:
            if request.body not in booked.read().split():  # it may have been booked before a kill
                booked.write(request.body + b" ")
        if request.body == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)  # booked, and not answered
        request.reply()


def order(desk: machport.SendRight, name: bytes) -> list[str]:
    """Place an order until it is answered; why it had to be asked again.

    Raises:
        ServerDied: the port itself is dead, so that nobody will ever answer there.
    """
    reasons: list[str] = []
    while True:
        try:
            desk.call(name)
            return reasons
        except machport.ServerDied as error:
            if desk.is_dead():
                raise  # asking again by this right would go on for ever
            if not error.retry_safe:  # otherwise the server had not even received it
                reasons.append(f"{name.decode()} may have been booked already")


def buy(desk: machport.SendRight, said: machport.SendRight) -> None:
    for number in range(6):
        for reason in order(desk, b"order-%d" % number):
            said.send(reason.encode())
    said.send(b"all are placed")


def main() -> None:
    with tempfile.NamedTemporaryFile() as ledger, machport.Task() as task:
        port, back, said = task.allocate(), task.allocate(), task.allocate()
        task.spawn(buy, port.make_send().move(), said.make_send().move())
        for dies_at in (b"order-1", b"order-4", b""):
            port.request_port_destroyed(back)
            task.spawn(book, port.move(), ledger.name, dies_at)
            if dies_at:
                notice = back.receive()
                assert isinstance(notice, machport.PortDestroyedNotification)
                port = notice.right
        for message in said:
            print(message.body.decode())
            if message.body == b"all are placed":
                break
        print(ledger.read().decode().split())


if __name__ == "__main__":
    main()
