"""A desk hands out counters.  Each client gets a right to one of its own, and can reach no other."""

from collections import Counter

import machport


def serve(desk: machport.ReceiveRight) -> None:
    task = machport.task_self()
    everything = task.port_set(desk)
    counts: Counter[int] = Counter()
    for request in everything:
        if request.port == desk.name:
            counter = task.allocate()
            everything.add(counter)
            request.reply(rights=[counter.make_send().move()])
        else:
            counts[request.port] += 1
            request.reply(b"%d" % counts[request.port])


def counter_of(desk: machport.SendRight) -> machport.SendRight:
    (right,) = desk.call().rights
    assert isinstance(right, machport.SendRight)
    return right


def main() -> None:
    with machport.Task() as task:
        port = task.allocate()
        desk = port.make_send()
        task.spawn(serve, port.move())

        mine, yours = counter_of(desk), counter_of(desk)
        print(mine.call().body, mine.call().body, mine.call().body, yours.call().body)


if __name__ == "__main__":
    main()
