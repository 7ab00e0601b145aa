"""Limits of tasks in a real daemon: the refusal at the culprit, the line in the log, and others that go on."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from actors import PATIENCE, Client, DaemonProcess, RawTask, connect
from lineage import Lineage

import machport
from machport import Limits, testing
from machport.abi import constants as c
from machport.abi import message as layout
from machport.abi import traps as t
from machport.carrier import packet
from machport.carrier.hello import Hello
from machport.server.configuration import DEFAULTS

NewClient = Callable[[str], Client]

SETTINGS = """
[daemon]
hello_seconds = 1
silent_per_process = 5
connections_per_process = 8
services = 3
[tasks."few-names*"]
names = 20
[tasks."few-messages*"]
messages = 3
[tasks."few-bytes*"]
bytes = 1000
[tasks."few-threads*"]
threads = 2
[tasks."few-files*"]
descriptors = 5
[tasks."few-children*"]
children = 2
[tasks."narrow*"]
memory = 100000
[tasks."impatient*"]
sending = 100
waiters = 4
"""


@pytest.fixture
def strict(socket_path: Path) -> Iterator[DaemonProcess]:
    """A daemon with limits for tasks with certain labels."""
    path = socket_path.with_name("daemon.toml")
    path.write_text(SETTINGS)
    with DaemonProcess(socket_path, "--config", str(path)) as daemon:
        yield daemon


def logged(daemon: DaemonProcess, text: str) -> str:
    """The line of the log with a text, which may come a moment after the answer."""
    deadline = time.monotonic() + PATIENCE
    while not (lines := [line for line in daemon.log().splitlines() if text in line]):
        assert time.monotonic() < deadline, daemon.log()
        with machport.Task(label="asks again"):
            pass
    (line,) = lines
    return line


def test_limits_are_the_documented_ones_and_usage_is_counted(daemon: DaemonProcess, task: machport.Task) -> None:
    limits = task.limits()
    assert limits._replace(descriptors=0) == DEFAULTS._replace(descriptors=0)
    before = task.usage()
    port = task.allocate()
    port.make_send().send(bytes(96))
    with task.fileport(0):
        after = task.usage()
    names, messages, descriptors = after.names, after.messages, after.descriptors
    assert names is not None and before.names is not None and descriptors is not None
    assert (messages, after.bytes, after.threads) == (1, 24 + 4 + 96, 1)
    assert names == before.names + 2
    assert descriptors == before.descriptors + 1 if before.descriptors else 0
    assert task.usage().descriptors == before.descriptors


def test_a_limit_that_is_met_is_one_line_of_the_log(strict: DaemonProcess) -> None:
    """Task, process, executable, limit and use; a flood of refusals is no flood of lines."""
    with machport.Task(label="few-names") as task:
        with pytest.raises(machport.LimitReached, match="all 20 names"):
            task.allocate_many(30)
        for _ in range(100):
            with pytest.raises(machport.LimitReached):
                task.allocate()
        with machport.Task(label="other") as other:
            other.allocate_many(30)
        line = logged(strict, "limit met")
    assert f"task {task.label} of process {os.getpid()}, {os.path.realpath(sys.executable)} has 20 of 20 names" in line


def test_a_full_task_blocks_senders_to_its_ports_and_nobody_elses(strict: DaemonProcess) -> None:
    """The log names the port."""
    with machport.Task(label="few-messages") as lazy, machport.Task(label="sender") as sender:
        inbox = lazy.check_in("lazy")
        second = lazy.allocate(label="second")
        inbox.make_send().send(rights=[second.make_send().move()])
        to_lazy = sender.look_up("lazy")
        with inbox.receive(PATIENCE) as message:
            to_second = message.rights[0]
            assert isinstance(to_second, machport.SendRight)
            for _ in range(3):
                to_second.send(b"")
        with pytest.raises(machport.TimedOut):
            to_lazy.send(b"", timeout=0)
        own = sender.allocate()
        own.make_send().send(b"goes")
        assert own.receive(PATIENCE).body == b"goes"
        sent = threading.Thread(target=to_lazy.send, args=(b"at last",))
        sent.start()
        second.receive(PATIENCE).close()
        sent.join(PATIENCE)
        assert not sent.is_alive()
        assert lazy.usage().messages == 3
        line = logged(strict, "has 3 of 3 messages in the queues of its ports; senders to them wait; ")
        assert f"a port without a label, name {inbox.name:#x}" in line


def test_bytes_in_queues_are_limited(strict: DaemonProcess) -> None:
    with machport.Task(label="few-bytes") as task:
        right = task.allocate(label="mailbox").make_send()
        kept = task.allocate()
        to_kept = kept.make_send()
        to_kept.send(bytes(2000))
        with pytest.raises(machport.TimedOut):
            to_kept.send(b"", timeout=0)
        right.close()
        logged(strict, "of 1000 bytes in the queues")


def usage(raw: RawTask) -> Limits:
    answer = raw.trap(t.TASK_GET_LIMITS.pack(raw.call(t.TASK_SELF)[0]))
    return Limits.of_words(t.TASK_GET_LIMITS.unpack_answer(answer)[1][18:])


def test_threads_are_limited(strict: DaemonProcess) -> None:
    with RawTask(strict.path, "few-threads") as raw:
        threads = [raw.thread(), raw.thread()]
        answer = raw.trap(t.THREAD.pack())
        assert t.number_of(answer) == c.KERN_RESOURCE_SHORTAGE
        assert t.unpack_refusal(answer)[1].endswith("may have 2 threads, and has 2")
        threads.pop().close()
        while usage(raw).threads == 2:
            pass
        raw.thread().close()
        threads.pop().close()


def test_memory_for_calls_is_limited_and_long_messages_go_another_way(strict: DaemonProcess) -> None:
    with machport.Task(label="narrow") as task:
        port = task.allocate()
        port.make_send().send(bytes(100_000))
        assert port.receive(PATIENCE).body == bytes(100_000)
        memory = task.usage().memory
        assert memory is not None and memory <= 100_000


def make_files(task: machport.Task, count: int, held: contextlib.ExitStack) -> None:
    for _ in range(count):
        held.enter_context(task.fileport(0))


def test_files_are_limited(strict: DaemonProcess) -> None:
    with machport.Task(label="few-files") as task, contextlib.ExitStack() as files:
        with pytest.raises(machport.LimitReached, match="5 descriptors of the daemon, and has 5"):
            make_files(task, 10, files)
        files.close()
        task.fileport(0).close()


def test_watched_processes_count_among_the_descriptors_until_nothing_waits_for_them(strict: DaemonProcess) -> None:
    """For children and deposits, and nothing else than a process is watched."""
    with machport.Task(label="few-files") as task, contextlib.ExitStack() as files:
        pidfd = os.pidfd_open(os.getpid())
        files.callback(os.close, pidfd)
        reader, writer = os.pipe()
        files.callback(os.close, reader)
        files.callback(os.close, writer)
        before = task.usage().descriptors
        assert before is not None and before < 5
        child, port = task.calls.task_create(task.name), task.allocate()
        right = port.make_send()
        with pytest.raises(machport.InvalidArgument, match="not a pidfd"):
            task.calls.watch(child, reader)
        assert task.usage().descriptors == before
        task.calls.watch(child, pidfd)
        assert task.usage().descriptors == before + 1
        deposit = task.calls.deposit(right.name, c.MACH_MSG_TYPE_COPY_SEND)
        make_files(task, 5 - before - 1, files)
        with pytest.raises(machport.LimitReached, match="5 descriptors of the daemon, and has 5"):
            task.calls.watch_deposit(deposit, pidfd)
        task.calls.task_terminate(child)
        task.calls.watch_deposit(deposit, pidfd)
        assert task.usage().descriptors == 5
        task.calls.claim(deposit)
        assert task.usage().descriptors == 4


def test_children_on_their_way_are_limited(strict: DaemonProcess) -> None:
    with machport.Task(label="few-children") as task:
        made = [task.calls.task_create(task.name) for _ in range(2)]
        with pytest.raises(machport.LimitReached, match="2 children"):
            task.calls.task_create(task.name)
        task.calls.task_terminate(made[0])
        task.calls.task_create(task.name)


def test_what_a_task_waits_to_send_is_limited(strict: DaemonProcess) -> None:
    """MACH_SEND_NO_BUFFER with the limit and the use, and nothing of the message is gone."""
    with machport.Task(label="impatient") as task:
        full = task.allocate(qlimit=0)
        right = full.make_send()
        sender = threading.Thread(target=lambda: right.send(bytes(200)))
        sender.start()
        while not task.usage().sending:
            pass
        carried = task.allocate()
        with pytest.raises(machport.LimitReached, match="wait to be sent, and its limit is 100") as caught:
            right.send(rights=[carried.move()])
        assert caught.value.code == c.MACH_SEND_NO_BUFFER
        full.close()
        sender.join(PATIENCE)


def tagged(tag: int, trap: t.MsgTrap) -> bytes:
    payload = t.pack_async(tag, trap)
    return payload if isinstance(payload, bytes) else b"".join(map(bytes, payload))


def test_calls_that_wait_are_limited(strict: DaemonProcess) -> None:
    with RawTask(strict.path, "impatient") as raw:
        port = raw.call(t.REPLY_PORT)[0]
        with raw.rings() as thread:
            for tag in range(6):
                receive = t.MsgTrap(c.MACH_RCV_MSG, rcv_limit=100, rcv_name=port)
                assert thread.publish(tagged(tag, receive))
            for tag in (4, 5):
                found, answer = t.unpack_tagged(thread.answer())
                assert (found, answer.code) == (tag, c.KERN_RESOURCE_SHORTAGE)


def test_services_are_limited(strict: DaemonProcess) -> None:
    with machport.Task() as task, contextlib.ExitStack() as held:
        for number in range(3):
            held.enter_context(task.check_in(f"service {number}"))
        with pytest.raises(machport.LimitReached):
            task.check_in("one more")


def test_no_process_takes_all_names_of_services(socket_path: Path) -> None:
    """What it has taken counts until the service is gone, also with the daemon's successor."""
    settings = socket_path.with_name("daemon.toml")
    settings.write_text("[daemon]\nservices_per_process = 2\n")
    with Lineage(socket_path, "--config", str(settings)) as daemon, machport.Task() as task:
        first, second = task.check_in("first"), task.allocate()
        right = second.make_send()
        task.register("second", right)
        for _ in range(2):
            with pytest.raises(machport.LimitReached):
                task.check_in("third")
            with pytest.raises(machport.LimitReached):
                task.register("third", right)
            daemon.upgrade()
        with Client(task, "of another"):
            task.look_up("of another").close()
        second.close()
        task.check_in("third").close()
        first.close()


def test_connections_of_a_process_are_limited_and_told_so(strict: DaemonProcess) -> None:
    """As an answer; and others may come."""
    with contextlib.ExitStack() as held:
        for _ in range(8):
            held.enter_context(machport.Task())
        with pytest.raises(machport.MachError, match="may have 8 connections, and has 8"):
            machport.Task()
        done = subprocess.run(
            [sys.executable, "-c", "import machport; machport.Task().allocate()"], timeout=PATIENCE, check=False
        )
        assert done.returncode == 0
    machport.Task().close()


def test_connections_that_say_nothing_are_ended(strict: DaemonProcess) -> None:
    """The oldest when there are too many, all after a while; a hello in time is good."""
    with machport.Task(label="good") as good:
        silent = [connect(strict.path) for _ in range(7)]
        for sock in silent:
            assert sock.recv(1) == b""
            sock.close()
        good.allocate().close()
        assert "it has not said hello" in strict.log()
        with RawTask(strict.path):
            pass


def test_a_wrong_file_is_one_sentence(socket_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "daemon.toml"
    path.write_text("[task]\nnmes = 5")
    command = [sys.executable, "-m", "machport.server", "--socket", str(socket_path), "--config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "task.nmes is not known" in done.stderr


# Children


def tell_limits(answer: machport.SendRight) -> None:
    """In a child: what its task may have."""
    limits = machport.task_self().limits()
    answer.send(f"{limits.names} {limits.messages}".encode())


def test_a_child_has_the_limits_that_it_is_spawned_with_and_others_of_its_maker(strict: DaemonProcess) -> None:
    with machport.Task(label="few-messages") as task:
        answers = task.allocate()
        with task.spawn(tell_limits, answers.make_send().move(), limits=Limits(names=77)):
            assert answers.receive(PATIENCE).body == b"77 3"


def test_no_child_may_have_more_than_its_maker(strict: DaemonProcess) -> None:
    """Nothing is left of what was begun."""
    with machport.Task(label="few-names") as task:
        before = task.usage()
        with pytest.raises(machport.LimitReached, match="names of 21 are more than the 20"):
            task.spawn(tell_limits, limits=Limits(names=21))
        assert task.usage() == before
        with pytest.raises(machport.InvalidArgument, match="Limits"):
            task.spawn(tell_limits, limits=5)  # type: ignore[arg-type]


def test_only_the_maker_sets_limits_and_only_before_the_process_joins(daemon: DaemonProcess) -> None:
    with machport.Task() as task:
        with pytest.raises(machport.MachError, match="only who made a task"):
            task.calls.task_set_limits(task.name, Limits(names=5))
        with RawTask(daemon.path) as raw:
            me = raw.call(t.TASK_SELF)[0]
            child = raw.call(t.TASK_CREATE, me)[0]
            assert t.number_of(raw.trap(t.TASK_SET_LIMITS.pack(child))) == c.KERN_INVALID_ARGUMENT
            assert t.number_of(raw.trap(t.TASK_SET_LIMITS.pack(child, words=Limits(names=2).words()))) == 0
            words = t.TASK_GET_LIMITS.unpack_answer(raw.trap(t.TASK_GET_LIMITS.pack(child)))[1]
            assert Limits.of_words(words[:18]).names == 2


def test_tasks_of_a_world_have_limits_as_well() -> None:
    with testing.World(seed=1) as world:
        task = world.task("maker")
        assert task.limits().names == DEFAULTS.names
        answers = task.allocate()
        task.spawn(tell_limits, answers.make_send().move(), limits=Limits(names=77, messages=5))
        assert answers.receive().body == b"77 5"


# Others go on


def test_others_go_on_while_a_large_task_is_taken_down(daemon: DaemonProcess, new_client: NewClient) -> None:
    """It is dead at once, and its last right is gone in the end."""
    with machport.Task() as task:
        large = new_client("large")
        large.do("ports = task.allocate_many(20000)")
        large.do("last = task.allocate(); right = last.make_send()")
        last = large.do("inbox.name") and None
        assert last is None
        large.die()
        port = task.allocate()
        right = port.make_send()
        for _ in range(100):
            right.send(b"through")
            assert port.receive(PATIENCE).body == b"through"


def test_a_flood_to_a_task_that_does_not_read_disturbs_nobody(daemon: DaemonProcess, new_client: NewClient) -> None:
    lazy, flood = new_client("lazy"), new_client("flood")
    flood.do("to_lazy = task.look_up('lazy')")
    flood.begin(
        "import threading, time\n"
        "def send():\n"
        "    while True:\n"
        "        try:\n"
        "            to_lazy.send(bytes(1000), timeout=0)\n"
        "        except machport.TimedOut:\n"
        "            pass\n"
        "threading.Thread(target=send, daemon=True).start()"
    )
    flood.finish()
    with machport.Task() as task:
        port = task.allocate()
        right = port.make_send()
        for _ in range(200):
            right.send(b"through")
            assert port.receive(PATIENCE).body == b"through"
    lazy.kill()


def test_connections_that_come_in_masses_let_others_in(daemon: DaemonProcess) -> None:
    """Half of them silent, half with a hello, from two processes."""
    source = (
        "import socket, sys\n"
        "from machport.carrier import packet\n"
        "from machport.carrier.hello import Hello\n"
        "held = []\n"
        "print('bombs', flush=True)\n"
        "while True:\n"
        "    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "    sock.settimeout(1)\n"
        "    try:\n"
        "        sock.connect(sys.argv[1])\n"
        "        if len(held) % 2:\n"
        "            packet.send(sock, Hello('bomb').pack())\n"
        "    except OSError:\n"
        "        pass\n"
        "    held.append(sock)\n"
        "    if len(held) > 600:\n"
        "        held.clear()\n"
    )
    bombs = [
        subprocess.Popen([sys.executable, "-c", source, str(daemon.path)], stdout=subprocess.PIPE) for _ in range(2)
    ]
    try:
        for bomb in bombs:
            assert bomb.stdout is not None
            assert bomb.stdout.readline() == b"bombs\n"
        for _ in range(5):
            with machport.Task() as task, task.allocate() as port:
                port.make_send().send(b"in")
                assert port.receive(PATIENCE).body == b"in"
    finally:
        for bomb in bombs:
            bomb.kill()
            bomb.communicate()


def test_a_standard_error_that_nobody_reads_does_not_stop_the_daemon(socket_path: Path) -> None:
    """The pipe is full, and then closed."""
    command = [sys.executable, "-m", "machport.server", "--ready", "--verbose", "--socket", str(socket_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline().startswith(b"listening")
    for _ in range(500):
        machport.Task(label="x" * 100).close()
    process.stderr.close()
    with machport.Task() as task:
        task.allocate().close()
    process.terminate()
    assert process.wait(PATIENCE) == 0
    process.stdout.close()


def test_with_64_descriptors_it_answers_and_goes_on(socket_path: Path) -> None:
    """The greedy one is refused, a silent crowd goes, and whoever comes later is served."""

    def lower_limit() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    with DaemonProcess(socket_path, preexec_fn=lower_limit) as daemon, machport.Task(label="good") as good:
        good.allocate().close()
        before = daemon.descriptors()
        with machport.Task(label="greedy") as greedy, contextlib.ExitStack() as held:
            with pytest.raises(machport.LimitReached, match="descriptors of the daemon"):
                make_files(greedy, 64, held)
            for _ in range(100):
                held.enter_context(contextlib.closing(connect(daemon.path)))
            with machport.Task(label="later") as later:
                later.fileport(0).close()
            good.fileport(0).close()
        deadline = time.monotonic() + PATIENCE
        while daemon.descriptors() > before and time.monotonic() < deadline:
            good.allocate().close()
        assert daemon.descriptors() <= before


def make_ports(task: machport.Task, count: int, kept: list[machport.ReceiveRight]) -> None:
    while len(kept) < count:
        kept += task.allocate_many(1000)


def test_with_little_memory_the_largest_holder_gets_no_more_and_others_do(socket_path: Path) -> None:
    """It is told to whoever asks for too much, and the daemon is not ended by the system."""
    settings = socket_path.with_name("daemon.toml")
    with DaemonProcess(socket_path) as probe:
        pages = int(Path(f"/proc/{probe.pid}/statm").read_text().split()[1])
    settings.write_text(f"[daemon]\nmemory = {pages * os.sysconf('SC_PAGE_SIZE') + (12 << 20)}\n")
    with DaemonProcess(socket_path, "--config", str(settings)) as daemon, machport.Task(label="good") as good:
        with machport.Task(label="greedy") as greedy:
            kept: list[machport.ReceiveRight] = []
            with pytest.raises(machport.LimitReached):
                make_ports(greedy, 150_000, kept)
            good.allocate_many(100)
            names = greedy.usage().names
            assert names is not None and names < 150_000
        logged(daemon, "memory is short: task greedy")


def test_messages_that_a_client_is_given_and_does_not_read_go_back_and_its_channel_ends(strict: DaemonProcess) -> None:
    """Many receives with tags, and more bytes than may wait for the task: it cannot hide them in its answers."""
    with RawTask(strict.path, "few-bytes") as raw, raw.rings() as thread:
        me = raw.call(t.TASK_SELF)[0]
        port = raw.call(t.REPLY_PORT)[0]
        for tag in range(60):
            receive = t.MsgTrap(c.MACH_RCV_MSG, rcv_limit=4096, rcv_name=port)
            assert thread.publish(tagged(tag, receive))
        raw.call(t.INSERT_RIGHT, me, port, port, c.MACH_MSG_TYPE_MAKE_SEND)
        buffer = layout.pack(layout.bits(c.MACH_MSG_TYPE_COPY_SEND), port, inline=bytes(2000))
        for _ in range(60):
            raw.trap(t.MsgTrap(c.MACH_SEND_MSG | c.MACH_SEND_TIMEOUT, buffer).pack())
        while thread.sock.recv(1 << 16):
            pass
        assert 0 < (usage(raw).messages or 0) < 60


def test_a_client_that_asks_and_reads_nothing_is_not_served_further(daemon: DaemonProcess, task: machport.Task) -> None:
    """Its answers fill its own ring and socket; nothing of them is kept in the daemon."""
    with RawTask(daemon.path, "mute") as raw, raw.rings() as thread:
        written = 0
        while thread.publish(t.TASK_SELF.pack()):
            written += 1
        raw.control.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                packet.send(raw.control, t.TASK_SELF.pack())
        task.allocate().close()
        assert written > 100
        late = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        late.connect(str(daemon.path))
        packet.send(late, Hello("late").pack())
        late.settimeout(PATIENCE)
        assert packet.receive(late) is not None
        late.close()
