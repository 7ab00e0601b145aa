"""What the daemon tells of itself: deaths with what was lost, tasks and what they hold, numbers."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from actors import PATIENCE, Client, DaemonProcess

import machport
from machport.abi import constants as c
from machport.abi import message as layout
from machport.abi import reports as r
from machport.abi import traps as t
from machport.carrier import packet
from machport.client.oversight import Oversight
from machport.kernel import messages, ports, tasks
from machport.kernel.kernel import Kernel
from machport.server import reporting

NewClient = Callable[[str], Client]


def deaths(oversight: Oversight, after: int = 0) -> list[r.Death]:
    return r.unpack_report(oversight.report(t.REPORT_DEATHS, after=after), r.Deaths).deaths


def task_of(oversight: Oversight, pid: int) -> r.Task:
    tasks = r.unpack_report(oversight.report(t.REPORT_TASKS), r.Tasks).tasks
    return next(task for task in tasks if task.pid == pid)


def rights_of(oversight: Oversight, pid: int) -> list[r.Right]:
    number = task_of(oversight, pid).task
    return r.unpack_report(oversight.report(t.REPORT_RIGHTS, number), r.Rights).rights


def test_a_death_is_told_with_what_was_lost_and_whom_that_concerned(task: machport.Task, new_client: NewClient) -> None:
    server = new_client("printer")
    server.do("inbox.set_label('paper')")
    for number in range(3):
        server.inbox.send(bytes([number]) * 10)
    server.die()
    with Oversight() as oversight:
        (death,) = deaths(oversight)
    assert death.label.startswith("printer[")
    assert (death.pid, death.signal, death.exit_code, death.cause) == (server.pid, signal.SIGKILL, None, "signal")
    assert death.how == "was killed by SIGKILL"
    assert death.settled
    assert 0 < death.began < death.ended
    assert death.executable == os.readlink(f"/proc/{os.getpid()}/exe")
    assert death.lost["ports"] == 1
    assert (death.lost["messages"], death.lost["bytes"]) == (3, 3 * 40)
    assert death.caused == {"dead_name": 2}, "that of this test, and that of the service of names"
    assert {(told.kind, told.port) for told in death.told} == {("dead_name", "paper")}
    assert any(told.label.startswith("test[") for told in death.told)


def test_deaths_after_one_are_told(task: machport.Task, new_client: NewClient) -> None:
    new_client("first").die()
    with Oversight() as oversight:
        last = deaths(oversight)[-1].serial
        new_client("second").die()
        assert [death.label.partition("[")[0] for death in deaths(oversight, last)] == ["second"]


def leave(code: int) -> None:
    sys.exit(code)


def test_a_process_that_ends_after_its_connection_is_told_with_how_it_ended(task: machport.Task) -> None:
    """Python closes what it has before its process is gone: the one is seen before the other."""
    with Oversight() as oversight:
        for number in range(5):
            with task.spawn(leave, number) as child:
                assert child.join(PATIENCE) == number
                answer = oversight.report(t.REPORT_NEXT_DEATHS, after=number)
                (death,) = r.unpack_report(answer, r.Deaths).deaths
            assert (death.cause, death.exit_code, death.how) == ("exit", number, f"exited with {number}")
            assert death.settled
        causes = r.unpack_report(oversight.report(t.REPORT_METRICS), r.Metrics).deaths
    assert causes == {"exit": 5}


def ask_for_the_next(oversight: Oversight, after: int) -> None:
    """Ask without waiting, and let the daemon come to it."""
    oversight._control.post(t.REPORT.pack(t.REPORT_NEXT_DEATHS, 0, after, 0))
    with Oversight() as other:
        deaths(other)


def next_deaths(oversight: Oversight) -> list[r.Death]:
    received = packet.receive(oversight._control._sock)
    assert received is not None
    return r.unpack_report(received[0], r.Deaths).deaths


def test_deaths_to_come_are_waited_for(task: machport.Task, new_client: NewClient) -> None:
    first, second = new_client("first"), new_client("second")
    with Oversight() as oversight, Oversight() as gone:
        ask_for_the_next(oversight, 0)
        ask_for_the_next(gone, 0)
        gone.close()
        readable, _, _ = select.select([oversight._control._sock], [], [], 0)
        assert not readable
        first.die()
        assert [death.pid for death in next_deaths(oversight)] == [first.pid]
        second.die()
        ask_for_the_next(oversight, 1)
        assert [death.pid for death in next_deaths(oversight)] == [second.pid]
        assert [death.pid for death in deaths(oversight)] == [first.pid, second.pid], "nothing was answered twice"


def test_who_asks_twice_for_deaths_to_come_has_two_answers(task: machport.Task, new_client: NewClient) -> None:
    client = new_client("client")
    with Oversight() as oversight:
        for _ in range(2):
            ask_for_the_next(oversight, 0)
        assert next_deaths(oversight) == []
        client.die()
        assert [death.pid for death in next_deaths(oversight)] == [client.pid]


def test_whoever_only_looks_leaves_no_death_behind(task: machport.Task) -> None:
    for _ in range(3):
        with Oversight() as oversight:
            assert deaths(oversight) == []


def test_how_a_task_that_closed_ended_is_said(daemon: DaemonProcess) -> None:
    machport.Task(label="brief").close()
    with Oversight() as oversight:
        (death,) = deaths(oversight)
        metrics = r.unpack_report(oversight.report(t.REPORT_METRICS), r.Metrics)
    assert (death.cause, death.how) == ("closed", "closed its task")
    assert metrics.deaths == {"closed": 1}


def test_a_task_is_told_with_its_process_and_names(task: machport.Task, new_client: NewClient) -> None:
    client = new_client("worker")
    with Oversight() as oversight:
        told = task_of(oversight, client.pid)
    assert told.label == f"worker[{client.pid}]"
    assert told.names == client.do("len(task.calls.mach_port_names(task.name))")
    assert (told.made, told.threads, told.uid) == (False, 1, os.getuid())


def test_a_call_that_waits_is_counted(task: machport.Task, new_client: NewClient) -> None:
    client = new_client("worker")
    client.begin("(mark(), inbox.receive().close())")
    client.wait_for_mark()
    with Oversight() as oversight:
        while not task_of(oversight, client.pid).blocked:
            pass
    client.inbox.send(b"")
    client.finish()


def test_rights_are_told_with_whoever_receives_there(task: machport.Task, new_client: NewClient) -> None:
    server, user = new_client("server"), new_client("user")
    server.do("inbox.set_label('jobs')")
    user.give("jobs", server.inbox.copy())
    server.inbox.send(b"12345678")
    with Oversight() as oversight:
        (held,) = [right for right in rights_of(oversight, user.pid) if right.label == "jobs"]
        assert (held.kind, held.refs, held.holder) == (c.MACH_PORT_TYPE_SEND, 1, f"server[{server.pid}]")
        (received,) = [right for right in rights_of(oversight, server.pid) if right.label == "jobs"]
        assert received.kind == c.MACH_PORT_TYPE_RECEIVE
        assert (received.messages, received.exact) == (1, True)
        assert received.holder_task == task_of(oversight, server.pid).task
        number = received.holder_task
        held_in_all = r.unpack_report(oversight.report(t.REPORT_HOLDINGS, number), r.Holdings)
    assert (held_in_all.ports, held_in_all.messages, held_in_all.bytes) == (1, 1, received.bytes)


def test_a_task_with_many_names_is_told_in_parts(task: machport.Task) -> None:
    """No answer looks at more than its share."""
    held = [task.allocate() for _ in range(reporting._NAMES + 10)]
    found: list[int] = []
    with Oversight() as oversight:
        number = task_of(oversight, os.getpid()).task
        at, answers = 0, 0
        while at or not answers:
            part = r.unpack_report(oversight.report(t.REPORT_RIGHTS, number, at), r.Rights)
            assert len(part.rights) <= reporting._NAMES
            found += [right.name for right in part.rights]
            at, answers = part.next, answers + 1
    assert answers == 2
    assert {port.name for port in held} <= set(found)
    assert len(found) == len(set(found))


def test_of_a_long_queue_as_many_messages_are_looked_at_as_one_answer_may() -> None:
    kernel = Kernel()
    holder = tasks.create_task(kernel, "holder")
    name = ports.mach_port_allocate(kernel, holder, c.MACH_PORT_RIGHT_RECEIVE)
    for _ in range(3):
        message = layout.pack(layout.bits(c.MACH_MSG_TYPE_MAKE_SEND), name)
        messages.mach_msg(kernel, holder, c.MACH_SEND_MSG, message)
    entry = holder.space.lookup(name)
    assert entry is not None and entry.port is not None
    assert reporting._queue(entry.port, 2) == (2, 48)
    assert reporting._queue(entry.port, 10) == (3, 72)


def test_numbers_count_what_was_done(task: machport.Task) -> None:
    port = task.allocate()
    with Oversight() as oversight:
        before = r.unpack_report(oversight.report(t.REPORT_METRICS), r.Metrics)
        port.make_send().send(b"1234")
        after = r.unpack_report(oversight.report(t.REPORT_METRICS), r.Metrics)
        assert after.kernel["sent"] == before.kernel["sent"] + 1
        assert after.kernel["sent_bytes"] == before.kernel["sent_bytes"] + len(b"1234") + 28
        assert after.kernel["received"] == before.kernel["received"]
        assert after.now["queued"] == before.now["queued"] + 1
        assert after.calls["mach_msg"] == before.calls.get("mach_msg", 0) + 1
        assert after.calls["report"] == before.calls["report"] + 1
        with pytest.raises(machport.TimedOut):
            (other := task.allocate()).receive(0)
        last = r.unpack_report(oversight.report(t.REPORT_METRICS), r.Metrics)
    assert last.refusals["MACH_RCV_TIMED_OUT"] == 1
    assert last.now["ports"] == after.now["ports"] + 1, other
    assert last.now["tasks"] == 3, "the service of names, this test, and whoever looks"
    assert last.now["descriptors"] > 0
    assert last.now["resident_bytes"] > 1 << 20


def test_a_task_that_another_one_made_may_not_look(daemon: DaemonProcess, task: machport.Task) -> None:
    """It may be there because its program is not trusted."""
    with task.spawn(look) as child:
        child.join(PATIENCE)
        assert child.exitcode == c.KERN_NO_ACCESS


def look() -> None:
    calls = machport.task_self().calls
    answer, _ = calls.carrier.trap(t.REPORT.pack(t.REPORT_TASKS, 0, 0, 0))
    os._exit(t.number_of(answer))


def test_what_cannot_be_reported_is_refused(daemon: DaemonProcess) -> None:
    with Oversight() as oversight:
        with pytest.raises(machport.MachError) as caught:
            oversight.report(99)
        assert caught.value.code == c.KERN_INVALID_ARGUMENT
        with pytest.raises(machport.MachError) as caught:
            oversight.report(t.REPORT_RIGHTS, 4711)
        assert caught.value.code == c.KERN_INVALID_TASK


def test_nobody_starts_a_daemon_to_look_at_it(socket_path: Path) -> None:
    with pytest.raises(machport.DaemonUnavailable, match="no daemon runs"):
        Oversight()
    assert not socket_path.exists()
