"""Whatever a client does to the rings of its threads, it harms only itself.

After each attack another client is served, and the daemon has as many descriptors as before.  Promise 2: one client
costs no other anything; promise 3: nobody hangs; M30 and M36 for what a thread had asked for, or had not read.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import signal
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from actors import PATIENCE, Client, DaemonProcess, RawTask, RawThread
from hypothesis import given
from hypothesis import strategies as st
from test_processes_hostile import FUZZ, Target

import machport
from machport.abi import constants as c
from machport.abi import message as layout
from machport.abi import traps as t
from machport.carrier import packet, rings

NewClient = Callable[[str], Client]

# Where things stand in the memory of narrow rings.
DAEMON_BELL, THREAD_BELL = 0, 64
DOWN = 128
UP = DOWN + 128 + rings.NARROW
HEAD, TAIL, ENTRIES = 0, 64, 128
SIZE = UP + 128 + rings.NARROW

U32_MAX = 2**32 - 1
SELF = t.TASK_SELF.pack()


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with (
        tempfile.TemporaryDirectory(prefix="machport-") as directory,
        DaemonProcess(Path(directory, "daemon.sock")) as daemon,
    ):
        target = Target(daemon)
        yield target
        target.check_descriptors()
        target.good.close()


@contextlib.contextmanager
def attack(target: Target) -> Iterator[tuple[RawTask, RawThread]]:
    """An attacker and one of its threads; afterwards everything is as before."""
    with target.attacker() as raw, raw.rings() as thread:
        yield raw, thread


def put(thread: RawThread, offset: int, value: int) -> None:
    struct.pack_into("=I", thread.region, offset, value)


def get(thread: RawThread, offset: int) -> int:
    value: int = struct.unpack_from("=I", thread.region, offset)[0]
    return value


def test_the_memory_has_the_layout_that_these_tests_spoil(target: Target) -> None:
    with attack(target) as (_, thread):
        assert len(thread.region) == SIZE
        assert get(thread, DAEMON_BELL) == 1
        thread.ends.down.enqueue(b"down")
        assert thread.region[DOWN + ENTRIES : DOWN + ENTRIES + 8] == b"\4\0\0\0down"
        assert get(thread, DOWN + TAIL) == 8
        assert len(thread.trap(SELF)) == 8
        assert get(thread, UP + HEAD) == get(thread, UP + TAIL) == 12


# Nonsense in the rings


@FUZZ
@given(
    seed=st.randoms(use_true_random=False),
    pokes=st.dictionaries(
        st.sampled_from([DOWN + HEAD, DOWN + TAIL, UP + HEAD, UP + TAIL, DAEMON_BELL, THREAD_BELL]),
        st.one_of(st.integers(0, rings.NARROW), st.integers(0, U32_MAX)),
        max_size=6,
    ),
    noise=st.booleans(),
)
def test_any_bytes_in_the_memory_are_answered_or_cut_off(
    target: Target, seed: object, pokes: dict[int, int], noise: bool
) -> None:
    with attack(target) as (_, thread):
        if noise:
            thread.region[:] = seed.randbytes(SIZE)  # type: ignore[attr-defined]
        for offset, value in pokes.items():
            put(thread, offset, value)
        thread.wake()
        target.check()


@pytest.mark.parametrize(
    ("head", "tail"),
    [
        (rings.NARROW + 1, 0),
        (U32_MAX, 0),
        (2**31, 2**31 + 8),
        (0, rings.NARROW + 1),
        (0, U32_MAX),
        (rings.NARROW - 1, 0),
        (8, 0),
    ],
)
def test_indexes_of_the_ring_down_that_lead_to_no_trap_cut_the_task_off(target: Target, head: int, tail: int) -> None:
    """Q39 to Q41: out of the ring, in the middle of nothing, or backwards."""
    with attack(target) as (raw, thread):
        put(thread, DOWN + HEAD, head)
        put(thread, DOWN + TAIL, tail)
        thread.wake()
        assert raw.is_cut_off()


@pytest.mark.parametrize("size", [0, 1, 2, 3, 5, rings.NARROW - 3, rings.NARROW, 2**31, U32_MAX])
def test_sizes_that_lie_cut_the_task_off(target: Target, size: int) -> None:
    with attack(target) as (raw, thread):
        thread.ends.down.enqueue(SELF)
        put(thread, DOWN + ENTRIES, size)
        thread.wake()
        assert raw.is_cut_off()


def test_an_entry_that_is_longer_than_what_was_published_is_read_no_further_than_the_ring(target: Target) -> None:
    """A trap may lie behind the tail, which harms nobody; the nonsense that is next to it is the end."""
    with attack(target) as (raw, thread):
        thread.ends.down.enqueue(SELF)
        put(thread, DOWN + TAIL, 4)
        thread.wake()
        assert raw.is_cut_off()


def test_a_ring_of_traps_without_end_keeps_nobody_from_his_turn(target: Target) -> None:
    """The tail is where no entry ends, so the traps never do; answers have no room, and the daemon looks away."""
    with attack(target) as (_, thread):
        thread.region[DOWN + ENTRIES : UP] = (struct.pack("=I", 4) + SELF) * (rings.NARROW // 8)
        put(thread, DOWN + TAIL, 3)
        thread.wake()
        for _ in range(100):
            target.check()
        assert thread.ends.up.unread() == rings.NARROW // 12 - (rings.NARROW % 12 == 0)


def test_a_dead_ring_of_traps_without_end_is_carried_out_only_so_far(target: Target) -> None:
    with attack(target) as (_, thread):
        thread.region[DOWN + ENTRIES : UP] = (struct.pack("=I", 4) + SELF) * (rings.NARROW // 8)
        put(thread, DOWN + TAIL, 3)


@pytest.mark.parametrize("payload", [b"\0\0\0\0", b"\xff" * 4, t.INTERRUPT.pack(), t.NAMES.pack(0)[:6], bytes(8000)])
def test_bytes_that_are_no_trap_cut_the_task_off(target: Target, payload: bytes) -> None:
    with attack(target) as (raw, thread):
        thread.publish(payload)
        assert raw.is_cut_off()


@pytest.mark.parametrize("trap", [t.THREAD, t.ABANDON])
def test_what_belongs_to_a_socket_is_refused_by_a_ring(target: Target, trap: t.Trap) -> None:
    with attack(target) as (raw, thread):
        thread.publish(trap.pack())
        assert raw.is_cut_off()


# The ring up


@pytest.mark.parametrize("field", [HEAD, TAIL])
@pytest.mark.parametrize("value", [rings.NARROW + 1, 2**31, U32_MAX])
def test_indexes_of_the_ring_up_outside_of_it_cut_the_task_off(target: Target, field: int, value: int) -> None:
    with attack(target) as (raw, thread):
        assert thread.trap(SELF)
        put(thread, UP + field, value)
        thread.publish(SELF)
        assert raw.is_cut_off()


@FUZZ
@given(heads=st.lists(st.integers(0, rings.NARROW), min_size=1, max_size=8))
def test_a_head_of_the_ring_up_that_goes_anywhere_costs_only_whoever_moved_it(target: Target, heads: list[int]) -> None:
    """Answers are written over unread ones, or find no room; with messages among them the daemon counts the unread."""
    with attack(target) as (raw, thread):
        port = raw.call(t.REPLY_PORT)[0]
        option = c.MACH_SEND_MSG | c.MACH_RCV_MSG | c.MACH_SEND_TIMEOUT | c.MACH_RCV_TIMEOUT
        buffer = layout.pack(c.MACH_MSG_TYPE_MAKE_SEND, port)
        trap = t.MsgTrap(option, buffer, rcv_name=port, rcv_limit=200).pack()
        for head in heads:
            thread.publish(trap)
            put(thread, UP + HEAD, head)
            target.check()


def test_who_never_reads_is_answered_in_order_when_it_does(target: Target) -> None:
    with attack(target) as (raw, thread):
        me, port = raw.call(t.TASK_SELF)[0], raw.call(t.REPLY_PORT)[0]
        traps = [
            trap
            for number in range(3000)
            for trap in (t.SET_CONTEXT.pack(me, port, number), t.GET_CONTEXT.pack(me, port))
        ]
        asked, stuck = 0, 0
        while stuck < 20:
            if thread.publish(traps[asked]):
                asked, stuck = asked + 1, 0
            else:
                target.check()
                stuck += 1
        answers = [thread.answer() for _ in range(asked)]
        assert answers[1::2] == [t.GET_CONTEXT.pack_answer((number,)) for number in range(asked // 2)]
        assert thread.trap(SELF)


def test_answers_by_the_socket_that_are_not_read_wait_and_come_in_order(target: Target) -> None:
    """Each brings a file, for which the socket has no room any more; then the ring is looked at again."""
    with attack(target) as (raw, thread), tempfile.TemporaryFile() as file:
        inode = os.fstat(file.fileno()).st_ino
        answer = raw.trap(t.FILEPORT_MAKEPORT.pack(), [file.fileno()])
        port = t.FILEPORT_MAKEPORT.unpack_answer(answer)[0][0]
        asked = 0
        while asked < 1000 and thread.publish(t.FILEPORT_MAKEFD.pack(port)):
            asked += 1
            target.check()
        assert asked > 300
        assert is_asleep(target.daemon.pid)
        for _ in range(asked):
            _, descriptors = thread.carried()
            assert [os.fstat(descriptor).st_ino for descriptor in descriptors] == [inode]
            packet.close_all(descriptors)
        assert len(thread.trap(SELF)) == 8


def test_a_daemon_that_waits_for_a_ring_or_a_socket_to_be_read_does_not_run(target: Target) -> None:
    """It sleeps, also if traps stand behind the answer that has no room; so time of its own hardly passes."""
    with attack(target) as (_, thread):
        stuck = 0
        while stuck < 20:
            stuck = 0 if thread.publish(SELF) else stuck + 1
            target.check()
        assert is_asleep(target.daemon.pid)


def is_asleep(pid: int) -> bool:
    """Whether a process comes to rest, seen by what it waits in."""
    for _ in range(10_000):
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S":
            return True
        os.sched_yield()
    return False


# Bells and wake-ups


@pytest.mark.parametrize("value", [0, 1, 2, 2**31, U32_MAX])
@pytest.mark.parametrize("bell", [DAEMON_BELL, THREAD_BELL])
def test_a_bell_may_say_anything(target: Target, bell: int, value: int) -> None:
    """Who spoils its own bell has to wake the daemon by itself; then it is served."""
    with attack(target) as (_, thread):
        for _ in range(5):
            put(thread, bell, value)
            assert thread.publish(SELF)
            thread.wake()
            target.check()
            assert len(thread.answer()) == 8


def test_a_bell_that_is_rung_all_the_time_disturbs_nobody(target: Target) -> None:
    with attack(target) as (_, thread):
        for _ in range(300):
            for _ in range(5):
                thread.wake()
            target.check()
        assert thread.trap(SELF)


def test_wake_ups_that_a_thread_never_takes_are_not_waited_for(target: Target) -> None:
    """Its bell is armed at each answer, so each is a packet, until its socket takes no more."""
    with attack(target) as (_, thread):
        for _ in range(1000):
            put(thread, THREAD_BELL, 1)
            assert thread.publish(SELF)
            while thread.ends.up.dequeue() is None:
                target.check()
        assert thread.trap(SELF)


# The memory itself


def test_the_memory_can_neither_shrink_nor_grow_nor_be_unsealed(target: Target) -> None:
    """Otherwise the daemon would die of SIGBUS."""
    with attack(target) as (_, thread):
        for size in (0, SIZE - 1, SIZE + 1, SIZE * 2):
            with pytest.raises(PermissionError):
                os.ftruncate(thread.memory, size)
        with pytest.raises(PermissionError):
            fcntl.fcntl(thread.memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
        with pytest.raises(OSError):
            os.pwrite(thread.memory, b"x", SIZE)
        with contextlib.suppress(OSError):
            os.posix_fallocate(thread.memory, 0, SIZE * 2)
        assert os.fstat(thread.memory).st_size == SIZE
        assert thread.trap(SELF)


def test_holes_in_the_memory_are_only_zeros(target: Target) -> None:
    """fallocate may punch them, seals or not: the daemon then reads zeros, and gets new pages."""
    with attack(target) as (raw, thread):
        assert thread.trap(SELF)
        thread.region.madvise(mmap.MADV_REMOVE)
        thread.wake()
        target.check()
        thread.publish(SELF)
        thread.wake()
        assert len(thread.answer()) == 8
        assert raw.call(t.TASK_SELF)


def widened(thread: RawThread) -> int:
    """Ask for wider rings, and use them; the daemon's code."""
    assert thread.publish(t.WIDEN.pack())
    answer, descriptors = thread.carried()
    if descriptors:
        os.close(thread.memory)
        (thread.memory,) = descriptors
        thread.use(thread.memory)
    return t.number_of(answer)


def test_a_thread_that_asks_for_wider_rings_again_and_again_has_only_the_last(target: Target) -> None:
    with attack(target) as (_, thread):
        resident = memory_of(target.daemon.pid)
        for _ in range(40):
            assert widened(thread) == 0
            assert thread.ends.is_wide
            assert thread.trap(SELF)
            target.check()
        assert memory_of(target.daemon.pid) - resident < 10 * 2 * rings.WIDE


def memory_of(pid: int) -> int:
    """Bytes of address space of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * mmap.PAGESIZE


def test_wider_rings_are_refused_by_a_socket(target: Target) -> None:
    with attack(target) as (raw, thread):
        assert t.number_of(raw.trap(t.WIDEN.pack(), sock=thread.sock)) == c.KERN_INVALID_ARGUMENT
        assert t.number_of(raw.trap(t.WIDEN.pack())) == c.KERN_INVALID_ARGUMENT
        assert thread.trap(SELF)


def test_traps_by_both_ways_at_once_are_answered_or_cut_off(target: Target) -> None:
    with attack(target) as (raw, thread):
        port = raw.call(t.REPLY_PORT)[0]
        thread.publish(t.MsgTrap(c.MACH_RCV_MSG, rcv_name=port, rcv_limit=100).pack())
        target.check()
        packet.send(thread.sock, SELF)
        assert raw.is_cut_off()


# A client that is killed, or interrupted, at each step

SEEN = """
made = []
class Seen(connection.Channel):
    def __init__(self, sock, pair):
        made.append((sock, pair))
        super().__init__(sock, pair)
connection.Channel = Seen
from machport.abi import message as layout, traps as t
from machport.carrier import packet
ready = threading.Event()
def run():
    task.calls.mach_port_names(task.name)
    ready.set()
    threading.Event().wait()
threading.Thread(target=run, daemon=True).start()
ready.wait()
sock, pair = made[-1]
def trap(number):
    header = layout.pack(mach.MACH_MSG_TYPE_COPY_SEND, right.name, 0, number)
    return t.MsgTrap(mach.MACH_SEND_MSG, header).pack()
"""


def waiting(port: machport.ReceiveRight) -> list[machport.Message]:
    messages = []
    with contextlib.suppress(machport.TimedOut):
        while True:
            messages.append(port.receive(0))
    return messages


@pytest.fixture
def victim(task: machport.Task, new_client: NewClient) -> tuple[Client, machport.ReceiveRight]:
    """A client with a ``right`` to a port of the test's, and the rings of one of its threads as ``pair``."""
    client, port = new_client("client"), task.allocate(qlimit=1000)
    client.give("right", port.make_send().move())
    client.do(SEEN)
    return client, port


def test_a_client_killed_between_writing_a_trap_and_publishing_it_has_asked_for_nothing(
    victim: tuple[Client, machport.ReceiveRight],
) -> None:
    client, port = victim
    client.do("room = pair.down.reserve(len(trap(1))); room[:] = trap(1)")
    client.die()
    assert waiting(port) == []


@pytest.mark.parametrize("count", [1, 2, 10, 100])
def test_a_client_killed_between_publishing_and_waking_has_asked_for_all_of_it(
    victim: tuple[Client, machport.ReceiveRight], count: int
) -> None:
    """M30: what a process had asked for before it died is carried out, in order, though nobody looked at its ring."""
    client, port = victim
    client.do(f"assert not any(pair.down.enqueue(trap(number)) & ~1 for number in range({count}))")
    client.die()
    assert [message.id for message in waiting(port)] == list(range(count))


def test_what_a_thread_published_is_carried_out_though_its_socket_ends_first(
    victim: tuple[Client, machport.ReceiveRight], task: machport.Task
) -> None:
    """The descriptors of a dead process are closed in an order that nobody chose."""
    client, port = victim
    client.do("for number in range(3): pair.down.enqueue(trap(number))\nsock.shutdown(2)")
    assert [port.receive(PATIENCE).id for _ in range(3)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("read", "size", "entries", "seen"),
    [
        # Short ones come together in one entry, before the one that ends them.
        (0, 4, 2, 0),
        (1, 4, 2, 4),
        *((read, rings.longest_of(rings.NARROW) + 100, 5, read) for read in range(3)),
        *((read, packet.INLINE_MAX * 2, 5, read) for read in range(3)),
    ],
)
def test_messages_that_a_killed_thread_had_not_read_go_back_in_order_and_those_it_read_do_not(
    task: machport.Task, new_client: NewClient, read: int, size: int, entries: int, seen: int
) -> None:
    """Also of several that one ``receive_many`` brought, and of long ones, which the socket brings."""
    client, back, port = new_client("client"), task.allocate(), task.allocate(qlimit=20)
    sender = port.make_send()
    port.request_port_destroyed(back)
    client.give("port", port.move())
    client.do(SEEN.replace("right.name", "0"))
    for number in range(5):
        sender.send(bytes([number]) * size)
    client.do("pair.down.enqueue(t.RECEIVE_MANY.pack(mach.MACH_RCV_MSG, 0x7FFFFFFF, port.name, 0, 4))")
    client.do("if pair.daemon_bell.ring(): sock.send(bytes(8))")
    client.do(f"while pair.up.unread() < {entries}: os.sched_yield()")
    # As a channel does: what comes by the socket counts as read when its entry is taken.
    client.do(f"for _ in range({read}): pair.up.skip()")
    client.die()
    notice = back.receive(PATIENCE)
    assert isinstance(notice, machport.PortDestroyedNotification)
    assert [message.body for message in waiting(notice.right)] == [bytes([n]) * size for n in range(seen, 5)]


def test_a_trap_for_more_messages_than_one_may_send_is_cut_off(task: machport.Task, new_client: NewClient) -> None:
    """What is done for one thread at a time is bounded, however wide its ring is."""
    client = new_client("client")
    client.do(SEEN.replace("right.name", "0"))
    client.do("pair.down.enqueue(t.pack_send_many([b''] * (t.SEND_MANY_MAX + 1)))")
    client.do("if pair.daemon_bell.ring(): sock.send(bytes(8))")
    client.wait_until_gone()


def test_many_answers_of_which_the_last_finds_no_room_end_once(task: machport.Task, new_client: NewClient) -> None:
    """The queue is found empty while the last message waits for room in the ring."""
    client, port = new_client("client"), task.allocate()
    sender = port.make_send()
    client.give("port", port.move())
    client.do(SEEN.replace("right.name", "0"))
    size = rings.longest_of(rings.NARROW) // 2 + 200
    for number in range(4):
        sender.send(bytes([number]) * size)
    client.do("pair.down.enqueue(t.RECEIVE_MANY.pack(mach.MACH_RCV_MSG, 0x7FFFFFFF, port.name, 0, 9))")
    client.do("if pair.daemon_bell.ring(): sock.send(bytes(8))")
    client.do("while pair.up.unread() < 3: os.sched_yield()")
    client.do("pair.down.enqueue(t.TASK_SELF.pack())")
    client.do(
        "answers = []\n"
        "while len(answers) < 6:\n"
        "    answers += pair.up.dequeue_many()\n"
        "    if pair.daemon_bell.ring(): sock.send(bytes(8))\n"
    )
    assert client.do("[t.is_last(answer) for answer in answers]") == [False] * 4 + [True] * 2
    assert client.do("t.TASK_SELF.unpack_answer(answers[-1])[0][0] == task.name")


def test_a_handler_that_calls_in_the_middle_of_a_call_has_a_channel_of_its_own(
    new_client: NewClient, task: machport.Task
) -> None:
    client = new_client("client")
    client.do("other = task.allocate(); sender = other.make_send()")
    client.do(
        "def handler(*_):\n    sender.send(b'from the handler')\n    mark()\nsignal.signal(signal.SIGUSR1, handler)"
    )
    client.begin("before_reading(mark); message = inbox.receive(); message.body")
    client.begin("message.body")
    client.wait_for_mark()
    client.signal(signal.SIGUSR1)
    client.wait_for_mark()
    client.inbox.send(b"for the call")
    client.finish()
    assert client.finish() == b"for the call"
    assert client.do(f"other.receive({PATIENCE}).body") == b"from the handler"


def test_a_handler_that_forks_in_the_middle_of_a_call_harms_neither_side(
    new_client: NewClient, task: machport.Task
) -> None:
    """T11: the child holds nothing of its parent's, and the parent's call goes on."""
    client = new_client("client")
    client.do(
        "import sys\n"
        "said = []\n"
        "def handler(*_):\n"
        "    reading, writing = os.pipe()\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        try: inbox.receive(0); result = 'received'\n"
        "        except BaseException as error: result = type(error).__name__\n"
        "        os.write(writing, result.encode())\n"
        "        os._exit(0)\n"
        "    os.close(writing)\n"
        "    with open(reading) as file: said.append(file.read())\n"
        "    os.waitpid(pid, 0)\n"
        "    mark()\n"
        "signal.signal(signal.SIGUSR1, handler)"
    )
    client.begin("before_reading(mark); message = inbox.receive()")
    client.wait_for_mark()
    client.signal(signal.SIGUSR1)
    client.wait_for_mark()
    client.inbox.send(b"for the parent")
    client.finish()
    assert client.do("message.body, said") == (b"for the parent", ["ForkedTask"])


@pytest.mark.parametrize("nested", [False, True], ids=["first call", "call of a handler"])
@pytest.mark.parametrize("looks", ["0", "300000"], ids=["asleep", "looking"])
def test_a_child_that_goes_on_with_its_parents_call_takes_nothing_from_it(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, looks: str, nested: bool
) -> None:
    """T11: a handler forks and returns in the child too, after the answer came; rings are shared with the parent."""
    monkeypatch.setenv("MACHPORT_SPIN_US", looks)
    with DaemonProcess(socket_path), machport.Task(label="test") as task, Client(task, "client") as client:
        client.do(SEEN.partition("from machport.abi")[0] + FORKING)
        if nested:
            client.do("def outer(*_):\n    global body\n    body = call()\nsignal.signal(signal.SIGUSR2, outer)")
            client.begin("before_reading(lambda: os.kill(os.getpid(), signal.SIGUSR2)); own.allocate()")
        else:
            client.begin("body = call()")
        client.wait_for_mark()
        client.signal(signal.SIGUSR1)
        client.finish()
        assert client.do("body, said") == (b"for the parent", [b"ForkedTask"])


FORKING = """
parent, said = os.getpid(), []
reading, writing = os.pipe()
own = machport.Task(label="own")
port = own.allocate()
sender = port.make_send()
def handler(*_):
    pid = os.fork()
    if pid:
        sender.send(b"for the parent")
        said.append(os.read(reading, 100))
        os.waitpid(pid, 0)
    else:
        while not made[-1][1].up.data_available(): os.sched_yield()
signal.signal(signal.SIGUSR1, handler)
def call():
    before_reading(mark)
    try: result = port.receive().body
    except BaseException as error:
        if os.getpid() == parent: raise
        result = type(error).__name__.encode()
    if os.getpid() != parent:
        os.write(writing, result)
        os._exit(0)
    return result
"""


# How long a side looks before it sleeps


@pytest.mark.parametrize("looks", ["0", "1", "1000000", "0.5"])
def test_a_call_is_answered_however_long_both_sides_look(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, looks: str
) -> None:
    """MACHPORT_SPIN_US: 0 always sleeps, the most looks for a second; nothing but speed depends on it."""
    monkeypatch.setenv("MACHPORT_SPIN_US", looks)
    with (
        DaemonProcess(socket_path),
        machport.Task(label="test") as task,
        Client(task, "server") as server,
        Client(task, "client") as client,
    ):
        server.begin("for number in range(200): inbox.receive(30).reply(bytes([number]))")
        client.give("service", server.inbox.copy())
        answers = client.do("[service.call(b'question', timeout=30).body for _ in range(200)]")
        server.finish()
        assert answers == [bytes([number]) for number in range(200)]


@pytest.mark.parametrize("looks", ["nonsense", "-1", "1000001", "nan", "inf", "50us"])
def test_a_time_to_look_that_is_none_is_refused_with_what_it_takes(
    daemon: DaemonProcess, monkeypatch: pytest.MonkeyPatch, looks: str
) -> None:
    monkeypatch.setenv("MACHPORT_SPIN_US", looks)
    with machport.Task(label="test") as task:
        with pytest.raises(machport.InvalidArgument, match=r"MACHPORT_SPIN_US .* takes microseconds, 0 to 1000000"):
            task.allocate()
        monkeypatch.delenv("MACHPORT_SPIN_US")
        task.allocate().close()
