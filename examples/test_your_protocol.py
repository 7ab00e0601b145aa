"""How a protocol of your own is tested: copy this file, and run it with pytest.

The protocol: a server lends a lock.  What a client gets is a send right, and the lock is free again when that is gone:
because the client closed it, or because the client was killed.
"""

from collections import deque

import machport
from machport import testing

# The protocol, as it runs in real processes, too


def lend(port: machport.ReceiveRight) -> None:
    waiting: deque[machport.Message] = deque()
    lent: machport.ReceiveRight | None = None
    for message in port:
        if isinstance(message, machport.NoSendersNotification):
            if lent is not None:
                lent.close()
            lent = None
        else:
            waiting.append(message)
        while waiting and lent is None:
            lent = port.task.allocate()
            lent.request_no_senders(port, sync=1)
            lock = lent.make_send()
            try:
                waiting.popleft().reply(rights=[lock.move()])
            except machport.DeadPort:  # whoever asked was killed meanwhile
                lock.close()
                lent.close()
                lent = None


def work(service: machport.SendRight, log: list[str], name: str) -> None:
    with service.call():  # the lock goes with the answer that brought it
        log.append(f"{name} in")
        service.task.allocate().close()  # any call: here others may run, and crashes happen
        log.append(f"{name} out")


# Its tests


def hold(service: machport.SendRight, world: testing.World) -> None:
    with service.call():
        world.sleep(3600)


def begin(world: testing.World, log: list[str]) -> None:
    """A server and three clients."""
    task = world.task("test")
    port = task.allocate()
    with port.make_send() as service:
        world.process(lend, port.move(), daemon=True)
        for name in ("a", "b", "c"):
            world.process(work, service.copy(), log, name, label=name)


def test_one_after_the_other_has_the_lock(machport_world: testing.World) -> None:
    log: list[str] = []
    begin(machport_world, log)
    machport_world.run()
    assert sorted(log) == ["a in", "a out", "b in", "b out", "c in", "c out"]
    assert all(log[i][0] == log[i + 1][0] for i in (0, 2, 4))


def test_the_lock_is_free_again_when_its_holder_is_killed(machport_world: testing.World) -> None:
    with machport_world.task("test") as task:
        port = task.allocate()
        service = port.make_send()
        task.spawn(lend, port.move())
        holder = task.spawn(hold, service.copy(), machport_world)
        holder.join(timeout=1)  # of virtual time: until everybody waits
        try:
            service.call(timeout=60)
            raise AssertionError("two have the lock")
        except machport.TimedOut:
            holder.kill()
        assert service.call().rights


def test_no_crash_of_a_client_locks_the_others_out() -> None:
    """Every client killed at every step, in ten orders of turns."""

    def scenario(world: testing.World) -> None:
        log: list[str] = []
        begin(world, log)
        world.run()
        survivors = [process.label for process in world.processes if process.exitcode == 0]
        assert {f"{name} out" for name in survivors} <= set(log)

    testing.explore(scenario, seeds=range(10), crashes=["a", "b", "c"])


def test_the_same_with_a_real_daemon_and_a_real_process(machport_task: machport.Task) -> None:
    port = machport_task.allocate()
    service = port.make_send()
    with machport_task.spawn(lend, port.move()):
        for _ in range(3):
            with service.call(timeout=30) as answer:
                assert answer.rights
