"""A daemon is replaced while its clients are in the middle of everything; they notice nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from actors import PATIENCE, Client, Puppet, RawTask, connect
from lineage import Lineage

import chaos
import machport
from machport import aio
from machport.abi import constants as c
from machport.abi import reports as r
from machport.abi import traps as t
from machport.carrier import packet
from machport.carrier.hello import Hello
from machport.client.oversight import Oversight

NewClient = Callable[[str], Client]
UPGRADES = 20
LONG = bytes(range(256)) * 8192  # 2 MiB: beside the rings


@pytest.fixture
def daemon(socket_path: Path) -> Iterator[Lineage]:
    with Lineage(socket_path) as daemon:
        yield daemon


class InThread:
    """A call of another thread, which has begun."""

    def __init__(self, task: machport.Task, call: Callable[[], object]) -> None:
        self._call, self._value = call, list[object]()
        started = threading.Event()

        def run() -> None:
            task.calls.mach_port_names(task.name)
            started.set()
            self._value.append(call())

        self._thread = threading.Thread(target=run)
        self._thread.start()
        assert started.wait(PATIENCE)

    def value(self) -> object:
        self._thread.join(PATIENCE)
        (value,) = self._value
        return value


def test_who_waits_for_deaths_to_come_waits_on(daemon: Lineage, task: machport.Task, new_client: NewClient) -> None:
    client = new_client("client")
    with Oversight() as oversight, Oversight() as other:
        oversight._control.post(t.REPORT.pack(t.REPORT_NEXT_DEATHS, 0, 0, 0))
        other.report(t.REPORT_METRICS)
        daemon.upgrade()
        client.die()
        received = packet.receive(oversight._control._sock)
        assert received is not None
        assert [death.pid for death in r.unpack_report(received[0], r.Deaths).deaths] == [client.pid]


def test_calls_that_wait_go_on(daemon: Lineage, task: machport.Task, new_client: NewClient) -> None:
    """In another process: blocked in receive, in send on a full queue, and for an answer."""
    receiver, sender, caller = new_client("receiver"), new_client("sender"), new_client("caller")
    full, server = task.allocate(qlimit=1), task.allocate()
    sender.give("right", full.make_send().move())
    caller.give("right", server.make_send().move())
    receiver.begin("[before_sleeping(mark), inbox.receive().body][1]")
    sender.begin("[right.send(b'1'), before_sleeping(mark), right.send(b'2')][2]")
    caller.begin("[before_sleeping(mark), right.call(b'question').body][1]")
    for client in (receiver, sender, caller):
        client.wait_for_mark()
    daemon.upgrade()
    receiver.inbox.send(b"through")
    assert receiver.finish() == b"through"
    assert [full.receive(PATIENCE).body for _ in range(2)] == [b"1", b"2"]
    sender.finish()
    server.receive(PATIENCE).reply(b"answer")
    assert caller.finish() == b"answer"


def test_a_timeout_that_runs_is_over_when_it_was_to_be(daemon: Lineage, task: machport.Task) -> None:
    port, full = task.allocate(), task.allocate(qlimit=1)
    right = full.make_send()
    right.send(b"fills it")

    def late(call: Callable[[], object]) -> bool:
        with pytest.raises(machport.TimedOut):
            call()
        return True

    waiting = [
        InThread(task, lambda: late(lambda: port.receive(1.0))),
        InThread(task, lambda: late(lambda: right.send(b"no room", timeout=1.0))),
    ]
    daemon.upgrade()
    assert all(wait.value() for wait in waiting)
    assert full.status().msgcount == 1


def test_many_calls_of_a_loop_go_on(daemon: Lineage, loop_task: aio.Task) -> None:
    """Waiting, answered and not taken, with a timeout, and cancelled after the upgrade."""
    ports = loop_task.allocate_many(100)

    async def main() -> None:
        waiting = [asyncio.create_task(port.receive(PATIENCE)) for port in ports]
        given_up = asyncio.create_task(loop_task.allocate().receive())
        late = asyncio.create_task(loop_task.allocate().receive(0.5))
        await asyncio.sleep(0)
        for port in ports[:50]:
            await port.make_send().send(b"before")
        await asyncio.to_thread(daemon.upgrade)
        for port in ports[50:]:
            await port.make_send().send(b"after")
        given_up.cancel()
        async with asyncio.timeout(PATIENCE):
            bodies = [(await message).body for message in waiting]
            with pytest.raises(machport.TimedOut):
                await late
        assert bodies == [b"before"] * 50 + [b"after"] * 50

    asyncio.run(main())


def test_what_stands_in_rings_and_sockets_is_read_once(daemon: Lineage, task: machport.Task) -> None:
    """Traps that nobody has taken yet, and answers that the thread has not read, in its ring and beside it."""
    port = task.allocate(qlimit=8)
    task.register("port", port.make_send())
    with RawTask(daemon.path) as raw, raw.rings() as thread:
        raw.call(t.TASK_SELF)
        names = [thread.trap(t.TASK_SELF.pack()) for _ in range(3)]
        assert len(set(names)) == 1
        for _ in range(5):
            assert thread.publish(t.TASK_SELF.pack())
        packet.send(raw.control, t.TASK_SELF.pack())
        daemon.upgrade()
        for _ in range(5):
            assert thread.publish(t.TASK_SELF.pack())
        assert [thread.answer() for _ in range(10)] == names[:1] * 10
        assert t.number_of(raw.read(raw.control)) == 0


def test_a_message_that_a_killed_process_had_not_read_is_back_in_its_queue(
    daemon: Lineage, task: machport.Task, new_client: NewClient
) -> None:
    """It was handed over before the upgrade, and the process dies after it."""
    client, port = new_client("client"), task.allocate()
    right = port.make_send()
    notify = task.allocate()
    port.request_port_destroyed(notify)
    client.give("port", port.move())
    client.begin("[before_sleeping(lambda: (mark(), signal.pause())), port.receive()][1]")
    client.wait_for_mark()
    right.send(b"unread")
    daemon.upgrade()
    client.kill()
    with notify.receive(PATIENCE) as notice:
        assert isinstance(notice, machport.PortDestroyedNotification)
        assert notice.right.receive(PATIENCE).body == b"unread"


def test_messages_that_are_queued_stay_as_they_are(daemon: Lineage, task: machport.Task, tmp_path: Path) -> None:
    """Short and long ones, with rights of each kind, a file and a data queue inside, in a set and out of it."""
    port, other, moved = task.allocate(qlimit=16), task.allocate(label="other"), task.allocate()
    right, group = port.make_send(), task.port_set(port)
    (tmp_path / "file").write_text("text")
    queue = machport.DataQueue(4096)
    moved.make_send().send(b"inside")
    with open(tmp_path / "file") as file:
        right.send(b"short", rights=[other.make_send().move(), moved.move(), task.fileport(file).move()])
    right.send(LONG)
    right.send(b"queue", rights=[queue.move_consumer()])
    right.send_many([bytes([number]) for number in range(8)])
    daemon.upgrade()
    message = group.receive(PATIENCE)
    to_other, inner, fileport = message.rights
    assert isinstance(inner, machport.ReceiveRight)
    assert isinstance(to_other, machport.SendRight) and isinstance(fileport, machport.SendRight)
    assert inner.receive(PATIENCE).body == b"inside"
    with open(fileport.open_file()) as file:
        assert file.read() == "text"
    to_other.send(b"hello")
    assert other.receive(PATIENCE).body == b"hello"
    assert other.describe().label == "other"
    assert group.receive(PATIENCE).view == LONG
    (end,) = group.receive(PATIENCE).rights
    assert isinstance(end, machport.SendRight)
    consumer = end.open_data_queue()
    queue.enqueue(b"entry")
    assert consumer.dequeue(PATIENCE) == b"entry"
    assert [message.body for message in group.receive_many(8)] == [bytes([number]) for number in range(8)]
    consumer.close()
    queue.close()


def test_notifications_that_were_asked_for_come(daemon: Lineage, task: machport.Task, new_client: NewClient) -> None:
    client = new_client("client")
    watched, returned, notify = task.allocate(), task.allocate(), task.allocate()
    watched.request_no_senders(notify)
    client.give("right", watched.make_send().move())
    returned.request_port_destroyed(notify)
    client.give("port", returned.move())
    client.inbox.request_dead_name(notify)
    client.do("waits = task.allocate(); once = waits.make_send_once()")
    daemon.upgrade()
    client.kill()
    kinds = {type(notify.receive(PATIENCE)).__name__ for _ in range(3)}
    assert kinds == {"NoSendersNotification", "PortDestroyedNotification", "DeadNameNotification"}


def test_how_tasks_ended_is_told_before_and_after(daemon: Lineage, task: machport.Task, new_client: NewClient) -> None:
    first, second, alive = new_client("first"), new_client("second"), new_client("alive")
    first.die()
    daemon.upgrade()
    second.kill()
    second.wait_until_gone()
    daemon.upgrade()
    for client in (first, second):
        ended = client.inbox.describe().obituary
        assert ended is not None and ended.signal == signal.SIGKILL and ended.pid == client.pid
    assert alive.inbox.describe().holder_pid == alive.pid


def test_names_are_looked_up_and_forgotten_as_before(
    daemon: Lineage, task: machport.Task, new_client: NewClient
) -> None:
    client, port = new_client("client"), task.check_in("service")
    daemon.upgrade()
    task.look_up("service").send(b"found")
    assert port.receive(PATIENCE).body == b"found"
    client.die()
    with pytest.raises(machport.InvalidName):
        task.look_up("client")
    port.close()
    task.check_in("service").close()


def test_what_is_on_its_way_to_a_process_arrives(daemon: Lineage, task: machport.Task) -> None:
    """A task that its process has not claimed yet, a right that waits for its ticket, and who has not said hello."""
    child = task.calls.task_create(task.name)
    ticket = task.calls.ticket(child)
    port = task.allocate()
    right = port.make_send()
    deposit = task.calls.deposit(right.name, c.MACH_MSG_TYPE_COPY_SEND)
    with connect(daemon.path) as stranger:
        daemon.upgrade()
        packet.send(stranger, Hello("child", ticket).pack())
        assert b"child" in RawTask.read(stranger)
        # A made task has no say in what the daemon does.
        packet.send(stranger, t.UPGRADE.pack())
        assert t.number_of(RawTask.read(stranger)) == c.KERN_NO_ACCESS
        name, kind = task.calls.claim(deposit)
        assert (name, kind) == (right.name, c.MACH_MSG_TYPE_PORT_SEND)


def test_children_whose_processes_die_on_their_way_end(daemon: Lineage, task: machport.Task) -> None:
    child, notify = task.calls.task_create(task.name), task.allocate()
    right = machport.SendRight(task, child)
    right.request_dead_name(notify)
    with Puppet() as puppet:
        pidfd = os.pidfd_open(puppet.pid)
        before = task.usage().descriptors
        task.calls.watch(child, pidfd)
        os.close(pidfd)
        watching = task.usage().descriptors
        daemon.upgrade()
        assert before is not None and task.usage().descriptors == watching == before + 1
        puppet.kill()
        assert isinstance(notify.receive(PATIENCE), machport.DeadNameNotification)
        assert task.usage().descriptors == before
    ended = right.describe().obituary
    assert ended is not None and "lost its process" in ended.reason


def test_a_task_that_was_terminated_stays_so(daemon: Lineage, task: machport.Task, new_client: NewClient) -> None:
    client = new_client("client")
    client.do("task.calls.task_terminate(task.name)")
    client.wait_until_gone()
    daemon.upgrade()
    with pytest.raises(AssertionError, match="KERN_INVALID_TASK"):
        client.do("task.allocate()")


def test_answers_that_wait_for_room_are_written(daemon: Lineage, task: machport.Task) -> None:
    """A loop that does not read: its answers stay with the daemon, which is replaced."""
    with RawTask(daemon.path) as raw, raw.rings() as thread:
        (name,) = raw.call(t.TASK_SELF)
        (port,) = raw.call(t.ALLOCATE, name, c.MACH_PORT_RIGHT_RECEIVE)
        raw.call(t.INSERT_RIGHT, name, port, port, c.MACH_MSG_TYPE_MAKE_SEND)
        count = 600
        receive = t.MsgTrap(c.MACH_RCV_MSG | c.MACH_RCV_TIMEOUT, rcv_limit=4096, rcv_name=port)
        sent = 0
        while sent < count and thread.publish(bytes(t.pack_async(sent, receive))):  # type: ignore[arg-type]
            sent += 1
        daemon.upgrade()
        tags = [t.unpack_tagged(thread.answer())[0] for _ in range(sent)]
        assert tags == list(range(sent))


def test_upgrades_leave_nothing_behind(daemon: Lineage, task: machport.Task) -> None:
    """As many descriptors, threads and mappings as before; and the order of messages."""
    port = task.allocate(qlimit=64)
    right = port.make_send()
    daemon.upgrade()
    before = daemon.resources()
    for number in range(UPGRADES):
        right.send(bytes([number]))
        daemon.upgrade()
    assert [message.body for message in port.receive_many(UPGRADES)] == [bytes([number]) for number in range(UPGRADES)]
    after = daemon.resources()
    assert after.descriptors == before.descriptors
    assert after.memory < before.memory * 1.2 and after.mappings < before.mappings * 1.2


def test_under_load_every_request_is_answered_once(daemon: Lineage, task: machport.Task, new_client: NewClient) -> None:
    server, callers = new_client("server"), [new_client(f"caller {number}") for number in range(3)]
    server.do("seen = []")
    server.begin(
        "for request in inbox:\n"
        "    if request.body == b'end': break\n"
        "    seen.append(request.body); request.reply(request.body)"
    )
    for caller in callers:
        caller.give("server", server.inbox.copy())
        caller.begin(
            "number = 0\n"
            "mark()\n"
            "while not inbox_has_something():\n"
            "    body = b'%d %d' % (os.getpid(), number)\n"
            "    assert server.call(body).body == body\n"
            "    number += 1".replace("inbox_has_something()", "inbox.status().msgcount")
        )
        caller.wait_for_mark()
    for _ in range(5):
        daemon.upgrade()
    for caller in callers:
        caller.inbox.send(b"end")
        caller.finish()
    server.inbox.send(b"end")
    server.finish()
    expected = sum(caller.do("number") for caller in callers)
    assert server.do("(len(seen), len(set(seen)))") == (expected, expected)
    assert expected > 100


def test_a_short_run_of_the_program_that_kills_old_and_new_processes() -> None:
    """``python -m chaos upgrades`` does it a thousand times."""
    command = [sys.executable, "-m", "chaos", "upgrades", "--amount", "8", "--seed", "6"]
    done = subprocess.run(
        command, cwd=Path(chaos.__file__).parents[1], capture_output=True, text=True, timeout=2 * PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
