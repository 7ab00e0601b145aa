"""A typed service is killed while it works, a successor takes its port over, and the client's proxy stays the same."""

import math
from typing import Protocol

import machport


class OutOfRange(Exception):
    def __init__(self, number: float) -> None:
        super().__init__(f"{number:g} is out of range")
        self.number = number


@machport.interface(name="org.example.calculator", version=(1, 0), errors=(OutOfRange,))
class Calculator(Protocol):  # what both sides know
    def divide(self, a: float, b: float) -> float: ...
    def root(self, number: float) -> float: ...
    def watch(self, watcher: machport.SendRight) -> None: ...


class Machine:  # any object with these methods
    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.watchers: list[machport.SendRight] = []

    def divide(self, a: float, b: float) -> float:
        result = a / b
        for watcher in self.watchers:
            watcher.send(f"{a:g} / {b:g}, asked of server {self.generation}".encode())
        return result

    def root(self, number: float) -> float:
        if number < 0:
            raise OutOfRange(number)
        return math.sqrt(number)

    def watch(self, watcher: machport.SendRight) -> None:
        self.watchers.append(watcher)


def serve(port: machport.ReceiveRight, generation: int) -> None:
    machport.serve(Calculator, Machine(generation), port)


def main() -> None:
    with machport.Task() as task:
        port, back, news = task.allocate(), task.allocate(), task.allocate()
        calculator = machport.proxy(Calculator, port.make_send(), timeout=10)
        port.request_port_destroyed(back)
        first = task.spawn(serve, port.move(), 1)

        calculator.watch(news.make_send().move())  # a right is an argument like any other
        print(calculator.divide(1, 4), "and the watcher heard:", news.receive().body.decode())
        for routine, arguments in ((calculator.divide, (1, 0)), (calculator.root, (-4,))):
            try:
                routine(*arguments)
            except (ZeroDivisionError, OutOfRange) as error:  # raised in the other process
                print(type(error).__name__, error)

        first.kill()  # SIGKILL
        notice = back.receive()
        assert isinstance(notice, machport.PortDestroyedNotification)
        task.spawn(serve, notice.right.move(), 2)
        calculator.watch(news.make_send().move())
        print(calculator.divide(9, 3), "and the watcher heard:", news.receive().body.decode())


if __name__ == "__main__":
    main()
