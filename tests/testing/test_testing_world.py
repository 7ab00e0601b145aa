"""A world is a kernel as the daemon's: the same tasks, rights and errors, without any process."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

import machport
from machport import mach, testing


@pytest.fixture
def world() -> Iterator[testing.World]:
    with testing.World() as world:
        yield world
        world.check()


@pytest.fixture
def task(world: testing.World) -> machport.Task:
    return world.task("main")


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_worlds_task_is_a_task(world: testing.World) -> None:
    task = world.task("server")
    assert isinstance(task, machport.Task)
    assert type(task.allocate()) is machport.ReceiveRight
    assert task.label == "server[1]"
    assert not task.closed


def test_a_message_brings_body_rights_memory_and_sender(world: testing.World, task: machport.Task) -> None:
    port, carried = task.allocate(), task.allocate()
    other = carried.make_send()
    port.make_send().send(b"body", id=7, rights=[other.move()], memory=[b"x" * 100_000, b""])

    message = port.receive()
    assert (message.body, message.id, [bytes(part) for part in message.memory]) == (b"body", 7, [b"x" * 100_000, b""])
    assert (message.sender, message.pid) == ((os.geteuid(), os.getegid()), 1)
    (right,) = message.rights
    assert isinstance(right, machport.SendRight)
    right.send(b"through it")
    assert carried.receive().body == b"through it"


def test_many_messages_go_and_come_together(task: machport.Task) -> None:
    port = task.allocate(qlimit=100)
    assert port.make_send().send_many([b"%d" % number for number in range(80)]) == 80
    assert [message.body for message in port.receive_many(50)] == [b"%d" % number for number in range(50)]
    assert len(port.receive_many(50)) == 30
    with pytest.raises(machport.TimedOut):
        port.receive_many(50, timeout=1)
    task.close_many([port, *task.allocate_many(20)])


def test_long_messages_are_sent_together(task: machport.Task) -> None:
    port = task.allocate()
    bodies = [b"a" * 10_000, b"b" * 20_000]
    port.make_send().send_many(bodies)
    assert [port.receive().body for _ in bodies] == bodies


def test_refusals_are_those_of_the_kernel(world: testing.World, task: machport.Task) -> None:
    port = task.allocate()
    right = port.make_send()
    port.close()
    with pytest.raises(machport.DeadPort):
        right.send(b"")
    with pytest.raises(machport.ServerDied):
        right.call(b"")
    with pytest.raises(machport.InvalidName, match=r"mach_port_type in task main\[1\]"):
        task.calls.mach_port_type(task.name, 0x12345)
    with pytest.raises(machport.InvalidArgument, match="not of task"):
        task.port_set(world.task("other").allocate())


def test_services_are_found_by_name(world: testing.World, task: machport.Task) -> None:
    other = world.task("other")
    service = task.check_in("org.example.echo")
    other.look_up("org.example.echo").send(b"found")
    assert service.receive().body == b"found"
    with pytest.raises(machport.AlreadyExists):
        other.check_in("org.example.echo")
    service.close()
    with pytest.raises(machport.InvalidName):
        other.look_up("org.example.echo")
    port = other.allocate()
    with port.make_send() as right:
        other.register("org.example.right", right)
    assert isinstance(task.look_up("org.example.right"), machport.SendRight)


def test_a_file_travels_and_is_closed_with_its_last_right(world: testing.World, task: machport.Task) -> None:
    other = world.task("other")
    before = open_files()
    read, write = os.pipe()
    service = other.check_in("org.example.file")
    with task.fileport(write) as right, task.look_up("org.example.file") as to:
        to.send(rights=[right.copy()])
    os.close(write)
    with service.receive() as message:
        (right_there,) = message.rights
        assert isinstance(right_there, machport.SendRight)
        with open(right_there.open_file(), "wb") as file:
            file.write(b"through the file")
    # The kernel's descriptor was the last of the writing side.
    assert os.read(read, 100) == b"through the file"
    assert os.read(read, 100) == b""
    os.close(read)
    assert open_files() == before


def test_a_refused_file_is_not_kept(task: machport.Task) -> None:
    before = open_files()
    with pytest.raises(machport.InvalidRight):
        task.allocate().make_send().open_file()
    with open(os.devnull) as file:
        right = task.fileport(file)
    assert open_files() == before + 1
    task.close()
    assert open_files() == before
    assert right.task.closed


def test_files_are_closed_at_the_end_of_the_world() -> None:
    before = open_files()
    with testing.World() as world, open(os.devnull) as file:
        world.task().fileport(file)
    assert open_files() == before


# Waiting


def test_a_wait_that_would_never_end_is_a_deadlock_with_a_sentence(world: testing.World, task: machport.Task) -> None:
    port = task.allocate()
    world.label(port, "answers")
    with pytest.raises(testing.Deadlock) as caught:
        port.receive()
    here = "test_testing_world.py"
    assert f"the test waits in receive for a message at 'answers', name {port.name:#x}, at " in str(caught.value)
    assert here in str(caught.value)
    # Nobody waits there any more.
    port.make_send().send(b"later")
    assert port.receive().body == b"later"


def test_a_full_queue_is_a_deadlock_and_its_message_is_gone(task: machport.Task) -> None:
    port = task.allocate(qlimit=1)
    right = port.make_send()
    right.send(b"one")
    with pytest.raises(
        testing.Deadlock, match=r"in send for room in the queue of the port allocated at .*:\d+ in test_a"
    ):
        right.send(b"two")
    assert port.receive().body == b"one"
    with pytest.raises(machport.TimedOut):
        port.receive(timeout=0)


def test_a_call_that_nobody_answers_names_who_does_not(world: testing.World, task: machport.Task) -> None:
    service = world.task("server").check_in("org.example.slow")
    right = task.look_up("org.example.slow")
    with pytest.raises(testing.Deadlock) as caught:
        right.call(b"")
    assert "for the answer of the service 'org.example.slow', whose receiver is server[2]" in str(caught.value)
    assert service.receive().body == b""


def test_a_deadlock_is_no_mach_error(task: machport.Task) -> None:
    """So code that catches what calls raise does not hide it."""
    with pytest.raises(AssertionError) as caught:
        task.port_set(task.allocate()).receive()
    assert not isinstance(caught.value, machport.MachError)


def test_a_timeout_takes_virtual_time(world: testing.World, task: machport.Task) -> None:
    port = task.allocate(qlimit=1)
    right = port.make_send()
    with pytest.raises(machport.TimedOut):
        port.receive(timeout=3600)
    assert world.now == 3600
    right.send(b"")
    with pytest.raises(machport.TimedOut):
        right.send(b"", timeout=0.25)
    assert world.now == 3600.25
    world.sleep(1)
    assert world.now == 3601.25


def test_both_halves_of_a_call_have_the_timeout(world: testing.World, task: machport.Task) -> None:
    """M2: the second begins when the first is done."""
    port = task.allocate()
    with pytest.raises(machport.TimedOut):
        port.make_send().call(b"", timeout=2)
    assert world.now == 2


# Ends


def test_an_abandoned_task_dies_as_a_killed_process(world: testing.World, task: machport.Task) -> None:
    """N19 and N50: whoever watches is told, and who waits for an answer learns that none comes."""
    victim = world.task("victim")
    deaths, answers = task.allocate(), task.allocate()
    service = victim.check_in("org.example.service")
    right = task.look_up("org.example.service")
    right.request_dead_name(deaths)
    for body in (b"taken", b"waits"):
        right.send(body, reply_to=answers)
    assert service.receive().body == b"taken"
    world.abandon(victim)

    assert victim.closed
    assert isinstance(deaths.receive(), machport.DeadNameNotification)
    assert [type(answers.receive()) for _ in range(2)] == [machport.SendOnceNotification] * 2
    with pytest.raises(machport.DeadTask):
        victim.allocate()
    service.close()


def test_a_queue_comes_back_when_its_receiver_is_abandoned(world: testing.World, task: machport.Task) -> None:
    """N28 and N36: with the messages that waited."""
    port, back = task.allocate(), task.allocate()
    right = port.make_send()
    port.request_port_destroyed(back)
    victim = world.task("victim")
    service = victim.check_in("org.example.entrance")
    task.look_up("org.example.entrance").send(rights=[port.move()])
    assert isinstance(service.receive().rights[0], machport.ReceiveRight)
    right.send(b"waits")
    world.abandon(victim)

    notice = back.receive()
    assert isinstance(notice, machport.PortDestroyedNotification)
    assert notice.right.receive().body == b"waits"


def test_closing_a_task_twice_does_nothing(world: testing.World) -> None:
    with world.task() as task:
        right = task.allocate()
        task.close()
    right.close()
    assert task.closed


def test_a_world_that_has_ended_makes_nothing(world: testing.World) -> None:
    task = world.task()
    world.close()
    world.close()
    assert task.closed
    with pytest.raises(machport.DeadTask):
        world.task()
    with pytest.raises(machport.DeadTask):
        world.process(print)
    assert repr(world) == "<World seed=0 of 0 processes>"


def test_a_task_of_a_world_listens_nowhere(task: machport.Task) -> None:
    with pytest.raises(machport.InvalidArgument, match="no daemon"):
        _ = task.path


def test_child_tasks_end_with_their_maker(world: testing.World, task: machport.Task) -> None:
    other = world.task("other")
    deaths = task.allocate()
    child = other.calls.task_create(other.name)
    assert len(other.calls.ticket(child)) == 16
    with pytest.raises(machport.InvalidArgument):
        other.calls.watch(child, 0)
    service = task.check_in("org.example.child")
    with other.look_up("org.example.child") as to:
        to.send(rights=[machport.SendRight(other, child).move()])
    (right,) = service.receive().rights
    assert right is not None
    right.request_dead_name(deaths)
    other.close()
    assert isinstance(deaths.receive(), machport.DeadNameNotification)


def test_a_thread_that_takes_no_turns_may_not_call(task: machport.Task) -> None:
    raised: list[BaseException] = []

    def run() -> None:
        try:
            task.allocate()
        except machport.InvalidArgument as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert "world.process" in str(raised[0])


# What is left


def test_what_a_task_still_holds_is_told_with_where_it_came_from(world: testing.World, task: machport.Task) -> None:
    port = task.allocate()
    right = port.make_send()
    assert [(held.task, held.name, held.kind, held.refs) for held in world.leaks()] == [
        ("main[1]", port.name, "receive right and send right", 1)
    ]
    with pytest.raises(testing.Leak, match=r"test_testing_world.py:\d+ in test_what_a_task_still_holds"):
        world.assert_clean()
    port.close()
    again = machport.SendRight(task, right.name)
    assert str(world.leaks()[0]) == f"main[1] holds dead name {right.name:#x}: its port died"
    again.close()
    world.assert_clean()


def test_what_a_task_holds_by_nature_is_no_leak(world: testing.World, task: machport.Task) -> None:
    """Its right to itself, and a port for the answer to its next call."""
    with task.check_in("org.example.echo") as service, task.look_up("org.example.echo") as right:
        with pytest.raises(machport.TimedOut):
            right.call(b"", timeout=1)
        service.receive().close()
        assert task.bootstrap is not None
    world.assert_clean()


def test_sets_and_files_are_told_too(world: testing.World, task: machport.Task) -> None:
    port = task.allocate()
    kept: list[machport.Right] = [task.port_set(port)]
    with open(os.devnull) as file:
        kept.append(task.fileport(file))
    task.calls.mach_port_allocate(task.name, mach.MACH_PORT_RIGHT_DEAD_NAME)
    told = [(held.kind, held.port) for held in world.leaks()]
    assert told[0][0] == "receive right"
    assert told[1:] == [("port set", "1 members"), ("send right", "an open file"), ("dead name", "its port died")]


def test_a_task_that_has_ended_leaks_nothing(world: testing.World, task: machport.Task) -> None:
    task.allocate()
    task.close()
    world.assert_clean()


def test_a_kernel_whose_counts_are_wrong_is_found_out(world: testing.World, task: machport.Task) -> None:
    port = task.allocate()
    world.check()
    entry = next(e for e in world.machine.members[0].space.entries.values() if e.name == port.name)
    assert entry.port is not None
    entry.port.sorights += 1
    with pytest.raises(testing.BrokenInvariant, match=r"port.sorights == census"):
        world.check()
    entry.port.sorights -= 1


def test_a_send_once_right_that_went_silently_is_found_out(world: testing.World, task: machport.Task) -> None:
    """N50."""
    port = task.allocate()
    once, used = port.make_send_once(), port.make_send_once()
    used.send(b"")
    port.make_send_once().close()
    port.receive_many()
    world.check()
    space = world.machine.members[0].space
    entry = space.lookup(once.name)
    assert entry is not None
    assert entry.port is not None
    entry.port.sorights -= 1
    space.free(entry)
    task.allocate().close()
    with pytest.raises(testing.BrokenInvariant, match=r"send-once right to the port allocated at .* without a message"):
        world.check()
    world.machine.send_once.unanswered.clear()


def test_only_rights_of_the_world_are_labelled(world: testing.World) -> None:
    with testing.World() as other, pytest.raises(machport.InvalidArgument, match="not of this world"):
        world.label(other.task().allocate(), "foreign")
