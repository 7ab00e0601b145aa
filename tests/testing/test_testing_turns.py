"""Processes of a world take turns: one at a time, in an order that the seed alone decides."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import machport
from machport import mach, testing
from machport.abi.traps import MsgTrap

Log = list[object]


@pytest.fixture
def world() -> Iterator[testing.World]:
    with testing.World() as world:
        yield world
        world.check()


@pytest.fixture
def task(world: testing.World) -> machport.Task:
    return world.task("main")


def serve(port: machport.ReceiveRight) -> None:
    for request in port:
        if request.expects_reply:
            request.reply(request.body.upper())


def ask(right: machport.SendRight, log: Log, *bodies: bytes) -> None:
    for body in bodies:
        log.append(right.call(body).body)


def nothing() -> None:
    pass


def test_processes_run_until_all_are_done(world: testing.World, task: machport.Task) -> None:
    log: Log = []
    port = task.allocate()
    right = port.make_send()
    server = world.process(serve, port.move(), daemon=True)
    clients = [world.process(ask, right.copy(), log, b"a", b"b") for _ in range(3)]
    assert not log
    world.run()
    assert sorted(map(str, log)) == sorted(map(str, [b"A", b"B"] * 3))
    assert [client.exitcode for client in clients] == [0, 0, 0]
    assert [client.label for client in clients] == ["ask", "ask#2", "ask#3"]
    assert server.exitcode is None
    assert server.is_alive()


def test_a_wait_of_the_test_lets_processes_run(world: testing.World, task: machport.Task) -> None:
    """And the README's program runs in a world as it does with a daemon."""
    port, deaths = task.allocate(), task.allocate()
    upper = port.make_send()
    upper.request_dead_name(deaths)
    child = task.spawn(serve, port.move())

    assert upper.call(b"hello", timeout=10).body == b"HELLO"
    child.kill()
    with pytest.raises(machport.ServerDied):
        upper.call(b"again")
    assert isinstance(deaths.receive(timeout=10), machport.DeadNameNotification)
    assert child.join() == -9
    assert child.exitcode == -9
    child.close()


def test_rights_arrive_as_the_processs_own(world: testing.World, task: machport.Task) -> None:
    """Promise 2: with just these; also in lists, tuples and dictionaries, and a list without rights is the same one."""
    arrived: Log = []

    def look(rights: list[machport.Right], more: dict[str, tuple[machport.Right, int]], same: Log) -> None:
        own = machport.task_self()
        same.append([type(right).__name__ for right in (*rights, more["it"][0])])
        same.append(all(right.task is own for right in rights))
        same.append(len(own.calls.mach_port_names(own.name)))
        same.append(mach.mach_task_self() == own.name)
        same.append(mach.mach_port_type(mach.mach_task_self(), rights[0].name) == mach.MACH_PORT_TYPE_RECEIVE)

    port, other = task.allocate(), task.allocate()
    once = other.make_send_once()
    world.process(look, [port.move(), other.make_send().move()], {"it": (once.move(), 1)}, arrived)
    assert port.closed
    assert once.closed
    world.run()
    assert arrived == [["ReceiveRight", "SendRight", "SendOnceRight"], True, 4, True, True]


def test_a_process_finds_services_and_a_spawned_child_does_not(world: testing.World, task: machport.Task) -> None:
    found: Log = []
    service = task.check_in("org.example.service")

    def find() -> None:
        found.append(machport.task_self().bootstrap is not None)

    world.process(find).join()
    task.spawn(find).join()
    task.spawn(find, bootstrap=True).join()
    assert found == [True, False, True]
    service.close()


def test_arguments_that_cannot_go_are_refused_and_nothing_is_lost(world: testing.World, task: machport.Task) -> None:
    port, right = task.allocate(), world.task("other").allocate().make_send()
    before = len(task.calls.mach_port_names(task.name))
    with pytest.raises(machport.InvalidArgument, match="does not travel as it is"):
        world.process(serve, port)
    with pytest.raises(machport.InvalidArgument, match="moved twice"):
        task.spawn(serve, port.move(), port.move())
    with pytest.raises(machport.InvalidArgument, match="all be of one task"):
        world.process(serve, port.move(), right.copy())
    with pytest.raises(machport.InvalidArgument, match="needs a function"):
        world.process(None)  # type: ignore[arg-type]
    with pytest.raises(machport.InvalidArgument, match="needs a function"):
        task.spawn(None)  # type: ignore[arg-type]
    assert len(task.calls.mach_port_names(task.name)) == before
    port.make_send().send(b"still here")
    assert port.receive().body == b"still here"


def test_a_process_may_not_use_rights_that_it_was_not_given(world: testing.World, task: machport.Task) -> None:
    """As in processes, whose variables are their own."""
    port = task.allocate()
    process = world.process(lambda: port.make_send(), label="thief")
    with pytest.raises(machport.InvalidArgument, match="process thief uses a right of task main"):
        world.run()
    assert process.exitcode == 1


def test_a_process_may_have_tasks_of_its_own(world: testing.World) -> None:
    deaths: Log = []

    def work() -> None:
        more = world.task("more")
        deaths.append(more)
        more.allocate()

    world.process(work)
    world.run()
    (more,) = deaths
    assert isinstance(more, machport.Task)
    assert more.closed


def test_processes_begin_others_and_wait_for_them(world: testing.World) -> None:
    log: Log = []

    def parent() -> None:
        log.append(world.process(nothing, label="first").join())
        log.append(machport.task_self().spawn(nothing).join())
        world.process(log.append, "last")

    world.process(parent)
    world.run()
    assert log == [0, 0, "last"]


def test_what_a_process_raises_is_raised_by_run(world: testing.World) -> None:
    def fail() -> None:
        raise ZeroDivisionError("oh")

    process = world.process(fail)
    with pytest.raises(ZeroDivisionError) as caught:
        world.run()
    assert caught.value.__notes__ == ["in process fail of the world with seed 0"]
    world.run()
    assert (process.exitcode, type(process.failure)) == (1, ZeroDivisionError)


def test_what_a_process_raised_fails_the_world_unless_it_was_looked_at() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), testing.World() as world:
        world.process(fail).join()
    with testing.World() as world:
        process = world.process(fail)
        process.join()
        assert isinstance(process.failure, ZeroDivisionError)
    with pytest.raises(ExceptionGroup) as caught, testing.World() as world:
        raise ExceptionGroup("of the test", [KeyError(world.process(fail).join())])
    assert caught.value.__notes__ == ["process fail had ended with ZeroDivisionError()"]


@pytest.mark.parametrize(("code", "exitcode"), [(None, 0), (3, 3), ("words", 1)])
def test_a_process_may_exit(world: testing.World, code: str | int | None, exitcode: int) -> None:
    process = world.process(sys.exit, code)
    world.run()
    assert process.exitcode == exitcode
    assert repr(process) == f"<Process exit, step 1, ended with {exitcode}>"


# Order


def race(world: testing.World) -> Log:
    log: Log = []
    task = world.task("main")
    port = task.allocate(qlimit=2)
    right = port.make_send()

    def send(right: machport.SendRight, who: int) -> None:
        for number in range(4):
            right.send(b"%d:%d" % (who, number))

    for who in range(3):
        world.process(send, right.copy(), who)
    log += [port.receive().body for _ in range(12)]
    world.run()
    return [*log, world.interleaving, world.transcript()]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**64))
def test_the_same_seed_gives_the_same_order(seed: int) -> None:
    runs = []
    for _ in range(2):
        with testing.World(seed) as world:
            runs.append(race(world))
    assert runs[0] == runs[1]


def test_other_seeds_give_other_orders() -> None:
    orders = set[tuple[object, ...]]()
    for seed in range(10):
        with testing.World(seed) as world:
            orders.add(tuple(race(world)[12]))  # type: ignore[arg-type]
    assert len(orders) == 10


def test_only_one_thread_runs_at_a_time(world: testing.World, task: machport.Task) -> None:
    port = task.allocate(qlimit=100)
    right = port.make_send()
    inside: Log = []

    def work(right: machport.SendRight) -> None:
        for _ in range(20):
            inside.append(None)
            assert len(inside) == 1
            inside.pop()
            right.send(b"")

    for _ in range(4):
        world.process(work, right.copy())
    world.run()
    assert port.status().msgcount == 80


# Time


def test_time_passes_only_when_everybody_waits(world: testing.World, task: machport.Task) -> None:
    moments: Log = []

    def sleep(seconds: float) -> None:
        world.sleep(seconds)
        moments.append(world.now)

    for seconds in (3, 1, 2.5, 1):
        world.process(sleep, seconds)
    world.run()
    assert moments == [1, 1, 2.5, 3]


def test_a_message_in_time_ends_a_wait_with_a_timeout(world: testing.World, task: machport.Task) -> None:
    port = task.allocate()
    right = port.make_send()

    def late(right: machport.SendRight) -> None:
        world.sleep(5)
        right.send(b"late")

    world.process(late, right.move())
    with pytest.raises(machport.TimedOut):
        port.receive(timeout=4)
    assert port.receive(timeout=4).body == b"late"
    assert world.now == 5


def test_a_join_has_a_timeout(world: testing.World) -> None:
    process = world.process(world.sleep, 10)
    assert process.join(timeout=4) is None
    assert process.join(timeout=100) == 0
    assert world.now == 10


# Nobody can go on


def test_a_deadlock_tells_who_waits_for_what_and_where(world: testing.World, task: machport.Task) -> None:
    a, b = task.allocate(), task.allocate()
    to_a, to_b = a.make_send(), b.make_send()
    for port, label in ((a, "port of a"), (b, "port of b")):
        world.label(port, label)

    def both(port: machport.ReceiveRight, other: machport.SendRight) -> None:
        other.call(b"you first")

    world.process(both, a.move(), to_b.move(), label="a")
    world.process(both, b.move(), to_a.move(), label="b")
    with pytest.raises(testing.Deadlock) as caught:
        world.run()
    first, *lines = str(caught.value).splitlines()
    line = both.__code__.co_firstlineno + 1
    here = f"at {os.path.relpath(__file__)}:{line} in both"
    assert first == "nobody can go on"
    assert [text.strip() for text in lines] == [
        f"a waits in call for the answer of 'port of b', whose receiver is b[3], {here}",
        f"b waits in call for the answer of 'port of a', whose receiver is a[2], {here}",
    ]


def test_a_deadlock_tells_who_has_failed(world: testing.World, task: machport.Task) -> None:
    def fail(port: machport.ReceiveRight) -> None:
        raise ZeroDivisionError

    port = task.allocate()
    world.process(fail, task.allocate().move())
    with pytest.raises(testing.Deadlock, match=r"fail has ended with ZeroDivisionError\(\)") as caught:
        port.receive()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    world.processes[0].failure  # noqa: B018


def test_waits_of_other_kinds_are_told(world: testing.World) -> None:
    def wait() -> None:
        task = machport.task_self()
        port = task.allocate()
        task.port_set(port).receive()

    process = world.process(wait)
    with pytest.raises(testing.Deadlock) as caught:
        process.join()
    assert "the test waits for the end of wait, at" in str(caught.value)
    assert "wait waits in receive for a message at a port set, name" in str(caught.value)


def test_a_receive_right_under_way_and_a_dead_service_are_told(world: testing.World, task: machport.Task) -> None:
    port, carrier = task.allocate(), task.allocate()
    right = port.make_send()
    carrier.make_send().send(rights=[port.move()])
    with pytest.raises(testing.Deadlock, match="whose receive right is on its way in a message"):
        right.call(b"")


def test_processes_that_never_end_are_given_up() -> None:
    def ask_for_ever() -> None:
        while True:
            machport.task_self().bootstrap.close()  # type: ignore[union-attr]

    with testing.World(step_limit=50) as world:
        world.process(ask_for_ever)
        with pytest.raises(testing.Livelock, match="made 50 steps"):
            world.run()


def test_a_process_does_not_run_the_world(world: testing.World) -> None:
    world.process(lambda: world.run())
    with pytest.raises(machport.InvalidArgument, match="cannot run it"):
        world.run()


def test_a_waiting_call_is_interrupted(world: testing.World) -> None:
    """M36: as ``thread_abort`` does it."""
    caught: Log = []
    idents: list[int] = []

    def wait(port: machport.ReceiveRight) -> None:
        idents.append(threading.get_ident())
        option = mach.MACH_RCV_MSG | mach.MACH_RCV_INTERRUPT
        answer = port.task.calls.mach_msg(MsgTrap(option, rcv_limit=1000, rcv_name=port.name))
        caught.append(answer.code)

    task = world.task("main")
    process = world.process(wait, task.allocate().move())
    process.join(timeout=1)
    task.calls.thread_abort(idents[0])
    task.calls.thread_abort(1)
    world.run()
    assert caught == [mach.MACH_RCV_INTERRUPTED]


# Rights that are forgotten


def test_a_right_that_is_forgotten_is_given_up_while_all_wait(world: testing.World, task: machport.Task) -> None:
    """In the process that forgets it, and in the test."""
    port = task.allocate()
    port.request_no_senders(port, sync=1)

    def forget(rights: list[machport.SendRight]) -> None:
        rights.clear()
        world.sleep(10)

    world.process(forget, [port.make_send().move()])
    assert isinstance(port.receive(timeout=5), machport.NoSendersNotification)
    assert world.now == 0


def test_nothing_is_collected_while_processes_take_turns(world: testing.World) -> None:
    """What is in a circle would be given up at any time."""
    seen: Log = []
    world.process(lambda: seen.append(gc.isenabled()), label="look")
    world.run()
    assert seen == [False]
    assert gc.isenabled()


# Watches


def test_a_process_watches_and_its_thread_ends_with_it(world: testing.World, task: machport.Task) -> None:
    log: Log = []
    port = task.allocate()

    def watch(right: machport.SendRight) -> None:
        right.on_dead_name(lambda notice: log.append(type(notice).__name__))
        log.append("watches")
        right.dead(timeout=100)
        right.task.allocate().receive()

    right = port.make_send()
    first, second = world.process(watch, right.copy()), world.process(watch, right.move())
    first.join(timeout=1)
    assert log == ["watches", "watches"]
    first.kill()
    port.close()
    second.join(timeout=1)
    assert log[2:] == ["DeadNameNotification"]
    second.kill()
    assert [thread.done for thread in world._scheduler.threads] == [True] * 4


def test_a_wait_ends_when_its_task_is_closed(world: testing.World) -> None:
    closed: Log = []

    def wait() -> None:
        try:
            machport.task_self().allocate().receive()
        except machport.DeadTask as error:
            closed.append(error.says)

    process = world.process(wait)
    process.join(timeout=1)
    process.task.close()
    world.run()
    assert closed == ["the task was closed, or its process has ended"]
    with pytest.raises(machport.InvalidArgument, match="not of this world"), testing.World() as other:
        world.abandon(other.task())


def test_an_abandoned_process_is_killed(world: testing.World) -> None:
    process = world.process(world.sleep, 10)
    process.join(timeout=1)
    world.abandon(process.task)
    assert process.exitcode == -9


def test_the_end_of_a_data_queue_is_given_to_a_process(world: testing.World, task: machport.Task) -> None:
    def produce(queue: machport.DataQueue) -> None:
        with queue:
            queue.enqueue(b"entry", timeout=0)

    with machport.DataQueue(4096) as queue:
        task.spawn(produce, queue.move_producer()).join()
        assert queue.dequeue(timeout=0) == b"entry"


# Crashes


def test_a_killed_process_ends_as_by_sigkill(world: testing.World, task: machport.Task) -> None:
    port, deaths = task.allocate(), task.allocate()
    right = port.make_send()
    right.request_dead_name(deaths)
    process = world.process(serve, port.move())
    assert right.call(b"a").body == b"A"
    process.kill()
    process.kill()
    assert process.exitcode == -9
    assert process.task.closed
    assert isinstance(deaths.receive(), machport.DeadNameNotification)
    world.run()


def test_a_killed_process_makes_no_trap_any_more(world: testing.World, task: machport.Task) -> None:
    """What unwinds its thread does not reach the kernel."""
    port = task.allocate()
    right = port.make_send()
    unwound: Log = []

    def work(right: machport.SendRight) -> None:
        try:
            right.task.allocate().receive()
        finally:
            unwound.append("finally")
            right.send(b"from the grave")

    process = world.process(work, right.move())
    process.join(timeout=1)
    events = len(world.machine.events)
    process.kill()
    assert unwound == ["finally"]
    assert [event.kind for event in world.machine.events[events:]] == ["end"]
    with pytest.raises(machport.TimedOut):
        port.receive(timeout=0)


def test_a_process_that_does_not_let_itself_be_killed_is_left_behind(world: testing.World) -> None:
    def stubborn() -> None:
        while True:
            try:
                machport.task_self().allocate().receive()
            except BaseException:
                continue

    process = world.process(stubborn)
    process.join(timeout=1)
    process.kill()
    world.run()
    assert process.exitcode == -9


def test_a_process_that_was_never_begun_is_killed(world: testing.World, task: machport.Task) -> None:
    log: Log = []
    port = task.allocate()
    right = port.make_send()
    process = world.process(ask, right.move(), log, b"")
    port.request_no_senders(port)
    process.kill()
    assert isinstance(port.receive(timeout=0), machport.NoSendersNotification)
    assert (log, process.steps) == ([], 0)


def test_a_process_may_kill_itself_and_others(world: testing.World) -> None:
    log: Log = []

    def murder() -> None:
        others[0].kill()
        log.append(others[0].exitcode)
        world.processes[-1].kill()
        log.append("never")

    others = [world.process(world.sleep, 10, label="victim")]
    others[0].join(timeout=1)
    process = world.process(murder)
    world.run()
    assert (log, process.exitcode) == ([-9], -9)


def test_a_message_that_was_handed_over_and_not_read_is_in_its_queue_again(
    world: testing.World, task: machport.Task
) -> None:
    """The death of a receiver loses nothing that it had not received; see architecture.md."""
    port, back = task.allocate(), task.allocate()
    right = port.make_send()
    port.request_port_destroyed(back)
    process = world.process(serve, port.move())
    process.join(timeout=1)
    right.send(b"one")
    right.send(b"two")
    process.kill()
    notice = back.receive()
    assert isinstance(notice, machport.PortDestroyedNotification)
    assert [notice.right.receive(timeout=0).body for _ in range(2)] == [b"one", b"two"]


def test_a_message_that_waits_to_be_sent_dies_with_its_sender(world: testing.World, task: machport.Task) -> None:
    port = task.allocate(qlimit=1)
    right = port.make_send()

    def send(right: machport.SendRight) -> None:
        right.send(b"one")
        right.send_many([b"two", b"three"])

    process = world.process(send, right.move())
    process.join(timeout=1)
    process.kill()
    assert port.receive().body == b"one"
    with pytest.raises(machport.TimedOut):
        port.receive(timeout=0)


def test_a_crash_comes_before_the_step_that_was_chosen(world: testing.World, task: machport.Task) -> None:
    port = task.allocate(qlimit=100)
    right = port.make_send()

    def send(right: machport.SendRight) -> None:
        for number in range(10):
            right.send(b"%d" % number)

    first = world.process(send, right.copy(), label="first")
    world.crash_at(first, 1)
    world.crash_at("second", 4)
    second = world.process(send, right.copy(), label="second")
    world.run()
    # Its first step is its beginning; each send is one.
    assert [message.body for message in port.receive_many()] == [b"0", b"1"]
    assert (first.exitcode, second.exitcode) == (-9, -9)
    with pytest.raises(machport.InvalidArgument, match="counted from 1"):
        world.crash_at(first, 0)


def test_a_batch_goes_on_when_there_is_room(world: testing.World, task: machport.Task) -> None:
    port = task.allocate(qlimit=1)
    right = port.make_send()
    failures: Log = []

    def send(right: machport.SendRight) -> None:
        failures.append(right.send_many([b"%d" % number for number in range(5)]))
        try:
            right.send_many([b"%d" % number for number in range(5)])
        except machport.DeadPort as error:
            failures.append(error.says)

    # One that waits when the port dies counts as sent (M16).
    world.process(send, right.move())
    assert [port.receive().body for _ in range(5)] == [b"%d" % number for number in range(5)]
    assert port.receive().body == b"0"
    port.close()
    world.run()
    assert failures == [5, "3 of 5 messages were sent"]


def test_an_interrupted_batch_goes_on(world: testing.World, task: machport.Task) -> None:
    """M36."""
    port = task.allocate(qlimit=1)
    right = port.make_send()
    idents: list[int] = []

    def send(right: machport.SendRight) -> None:
        idents.append(threading.get_ident())
        right.send_many([b"0", b"1", b"2"])

    world.process(send, right.move()).join(timeout=1)
    task.calls.thread_abort(idents[0])
    assert [port.receive().body for _ in range(3)] == [b"0", b"1", b"2"]
