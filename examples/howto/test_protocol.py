"""A door counts who is inside.  Each way to count is tried with a visitor that is killed at each of its steps."""

from collections.abc import Callable

import machport
from machport import testing

Program = Callable[..., None]


def trusting_door(port: machport.ReceiveRight) -> None:
    """Counts what visitors say."""
    inside = 0
    for request in port:
        inside += {b"enter": 1, b"leave": -1}.get(request.body, 0)
        request.reply(b"%d" % inside)


def tell(door: machport.SendRight) -> None:
    door.call(b"enter")
    door.call(b"leave")


def door_with_badges(port: machport.ReceiveRight) -> None:
    """Gives each visitor a right of his own, and counts those that somebody still has."""
    task = machport.task_self()
    everything = task.port_set(port)
    inside: dict[int, machport.ReceiveRight] = {}
    for message in everything:
        match message:
            case machport.NoSendersNotification():
                inside.pop(message.port).close()
            case _ if message.body == b"enter":
                badge = task.allocate()
                right = badge.make_send()
                badge.request_no_senders(badge)
                everything.add(badge)  # before the reply: no news of it comes behind that of others
                inside[badge.name] = badge
                try:
                    message.reply(rights=[right.move()])
                except machport.DeadPort:  # the visitor is gone already
                    right.close()
                    inside.pop(badge.name).close()
            case _:
                message.reply(b"%d" % len(inside))


def carry_a_badge(door: machport.SendRight) -> None:
    (badge,) = door.call(b"enter").rights
    assert badge is not None
    badge.close()


def one_visit(world: testing.World) -> None:
    visit_ends(world, trusting_door, tell)


def one_visit_with_a_badge(world: testing.World) -> None:
    visit_ends(world, door_with_badges, carry_a_badge)


def visit_ends(world: testing.World, door: Program, visit: Program) -> None:
    task = world.task("test")
    port = task.allocate()
    with port.make_send() as right:
        world.process(door, port.move(), daemon=True)
        world.process(visit, right.copy(), label="visitor").join()
        assert right.call(b"how many?").body == b"0", "somebody is inside who is not there"


def main() -> None:
    try:
        testing.explore(one_visit, seeds=range(5), crashes=["visitor"])
    except testing.Counterexample as error:
        print(error)
    print(
        testing.explore(one_visit_with_a_badge, seeds=range(5), crashes=["visitor"]), "worlds, and nobody is forgotten"
    )


if __name__ == "__main__":
    main()
