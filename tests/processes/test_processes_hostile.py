"""Whatever a client sends, it is answered or cut off, and no other client notices.

After each attack another client is served, and the daemon has as many descriptors as before.  Random bytes come from
hypothesis, which prints what it found and keeps it.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import socket
import struct
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from actors import PATIENCE, DaemonProcess, RawTask, connect
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import machport
from machport.abi import constants as c
from machport.abi import message as layout
from machport.abi import traps as t
from machport.abi.bootstrap import CHECK_IN, LOOK_UP, REGISTER, pack_name
from machport.carrier import packet
from machport.carrier.hello import MAGIC, TICKET_SIZE, VERSION, Hello

FUZZ = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)
#: A receive right, a receive right with a send right, a port set, a dead name and the task itself, in a new task.
NAMES = 5
#: Traps that are answered, or end the connection; without that by which another process becomes the daemon.
ANSWERED = [trap for trap in t.TRAPS.values() if trap not in (t.INTERRUPT, t.FORGET, t.CLOSE, t.UPGRADE)]


class Target:
    """A daemon under attack, and the client that must not notice."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self.daemon = daemon
        self.good = machport.Task(label="good", path=daemon.path)
        self.port = self.good.allocate()
        self.sender = self.port.make_send()
        self.check()
        self._descriptors = daemon.descriptors()

    def check(self) -> None:
        """The good client is served, and only it is."""
        self.sender.send(b"ping")
        assert self.port.receive(PATIENCE).body == b"ping"

    def check_descriptors(self) -> None:
        """No attack so far has left any."""
        deadline = time.monotonic() + PATIENCE
        self.check()
        # Rings are looked at more often than sockets, so the end of an attacker's may be seen after this.
        while self.daemon.descriptors() != self._descriptors and time.monotonic() < deadline:
            self.check()
        assert self.daemon.descriptors() == self._descriptors

    @contextlib.contextmanager
    def attacker(self) -> Iterator[RawTask]:
        """A task that has NAMES names; afterwards everything is as before."""
        with RawTask(self.daemon.path) as raw:
            raw.call(t.TASK_SELF)
            yield raw
        self.check_descriptors()


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


def write(sock: socket.socket, data: bytes, descriptors: Sequence[int] = ()) -> None:
    """One packet as it is, without our framing."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    with contextlib.suppress(ConnectionError):
        sock.sendmsg([data], ancillary)


def flood(target: Target, sock: socket.socket, payload: bytes) -> int:
    """Write the same trap until it is not taken any more, and read nothing; how often it was written."""
    sock.setblocking(False)
    written, refused = 0, False
    while True:
        try:
            packet.send(sock, payload)
            written, refused = written + 1, False
        except BlockingIOError:
            if refused:
                break
            # A daemon that still reads reads at least one more meanwhile.
            target.check()
            refused = True
    sock.settimeout(PATIENCE)
    return written


def names_of(raw: RawTask) -> list[int]:
    """Names of every kind in the attacker's task."""
    me = raw.call(t.TASK_SELF)[0]
    made = [raw.call(t.ALLOCATE, me, right)[0] for right in (1, 1, 3, 4)]
    raw.call(t.INSERT_RIGHT, me, made[1], made[1], c.MACH_MSG_TYPE_MAKE_SEND)
    bootstrap = raw.call(t.GET_SPECIAL_PORT, me, c.TASK_BOOTSTRAP_PORT)[0]
    return [me, bootstrap, *made]


# Before the hello


@FUZZ
@given(
    data=st.one_of(
        st.binary(max_size=300),
        st.binary(max_size=300).map(lambda rest: struct.pack("<II", 0, len(rest)) + rest),
        st.tuples(st.integers(0, 3), st.binary(min_size=TICKET_SIZE, max_size=400)).map(
            lambda parts: struct.pack("<II", 0, 12 + len(parts[1])) + MAGIC + struct.pack("<I", parts[0]) + parts[1]
        ),
    )
)
def test_any_first_packet_is_answered_or_cut_off(target: Target, data: bytes) -> None:
    with connect(target.daemon.path) as sock:
        write(sock, data)
        RawTask.read(sock)
    target.check_descriptors()


def test_another_version_is_told_which_one_is_spoken(target: Target) -> None:
    with connect(target.daemon.path) as sock:
        packet.send(sock, Hello("new", version=VERSION + 1).pack())
        _, says = t.unpack_refusal(RawTask.read(sock))
        assert says == f"the daemon speaks version {VERSION} and the task {VERSION + 1}"
        assert RawTask.read(sock) == b""


def test_a_ticket_that_was_never_given_is_refused(target: Target) -> None:
    with connect(target.daemon.path) as sock:
        packet.send(sock, Hello("thief", bytes(range(16))).pack())
        assert t.number_of(RawTask.read(sock)) == c.KERN_INVALID_CAPABILITY
    target.check_descriptors()


def test_a_ticket_is_good_for_one_process_even_if_two_were_asked_for(target: Target) -> None:
    with target.attacker() as raw:
        child = raw.call(t.TASK_CREATE, raw.call(t.TASK_SELF)[0])[0]
        tickets = [raw.trap(t.TICKET.pack(child))[4:] for _ in range(2)]
        with connect(target.daemon.path) as first:
            packet.send(first, Hello("child", tickets[1]).pack())
            assert t.number_of(RawTask.read(first)) == 0
            for ticket in tickets:
                with connect(target.daemon.path) as second:
                    packet.send(second, Hello("twin", ticket).pack())
                    assert t.number_of(RawTask.read(second)) == c.KERN_INVALID_CAPABILITY


def test_connections_that_say_nothing_and_go_leave_nothing(target: Target) -> None:
    for _ in range(20):
        connect(target.daemon.path).close()
    # Connections are accepted in their order: once this one is served, so were those.
    with target.attacker() as raw:
        raw.call(t.TASK_SELF)


# Packets


@FUZZ
@given(kind=st.integers(0, 2), length=st.integers(0, 2**32 - 1), rest=st.binary(max_size=100), files=st.integers(0, 5))
def test_any_packet_is_answered_or_cut_off(target: Target, kind: int, length: int, rest: bytes, files: int) -> None:
    with target.attacker() as raw:
        write(raw.control, struct.pack("<II", kind, length) + rest, [0] * files)
        packet_ends(raw)


@FUZZ
@given(data=st.binary(max_size=20))
def test_any_bytes_are_answered_or_cut_off(target: Target, data: bytes) -> None:
    with target.attacker() as raw:
        write(raw.control, data)
        packet_ends(raw)


def packet_ends(raw: RawTask) -> None:
    """Whatever was written is done with: the task is cut off, or answers what can be answered."""
    with contextlib.suppress(ConnectionError):
        packet.send(raw.control, t.TASK_SELF.pack())
        while (answer := RawTask.read(raw.control)) and len(answer) != 8:
            pass


def test_a_packet_longer_than_any_is_cut_off(target: Target) -> None:
    with target.attacker() as raw:
        write(raw.control, struct.pack("<II", 0, packet.INLINE_MAX + 4) + bytes(packet.INLINE_MAX + 4))
        assert raw.is_cut_off()


@pytest.mark.parametrize("count", [5, 100, 250])
def test_too_many_descriptors_are_cut_off_and_closed(target: Target, count: int) -> None:
    with target.attacker() as raw:
        write(raw.control, struct.pack("<II", 0, 4) + bytes(4), [0] * count)
        assert raw.is_cut_off()


def memory(size: int, seals: int = packet._SEALS) -> int:
    descriptor = os.memfd_create("hostile", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    if seals:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def pipe() -> int:
    reading, writing = os.pipe()
    os.close(writing)
    return reading


LONG = packet.INLINE_MAX + 8
UNSEALED = packet._SEALS & ~fcntl.F_SEAL_SEAL


@pytest.mark.parametrize(
    ("make", "length"),
    [
        pytest.param(lambda: memory(LONG, 0), LONG, id="not sealed"),
        pytest.param(lambda: memory(LONG, UNSEALED & ~fcntl.F_SEAL_SHRINK), LONG, id="can shrink"),
        pytest.param(lambda: memory(LONG, UNSEALED & ~fcntl.F_SEAL_WRITE), LONG, id="can be written"),
        pytest.param(lambda: memory(LONG), LONG + 1, id="shorter than it claims"),
        pytest.param(lambda: memory(LONG), LONG - 1, id="longer than it claims"),
        pytest.param(lambda: memory(100), 100, id="short enough for the packet"),
        pytest.param(lambda: memory(packet.PAYLOAD_MAX + 1), packet.PAYLOAD_MAX + 1, id="longer than any"),
        pytest.param(lambda: memory(packet.PAYLOAD_MAX), packet.PAYLOAD_MAX, id="longer than any trap"),
        pytest.param(lambda: os.open("/dev/zero", os.O_RDONLY), LONG, id="a device"),
        pytest.param(lambda: os.open("/", os.O_RDONLY), LONG, id="a directory"),
        pytest.param(pipe, LONG, id="a pipe"),
    ],
)
def test_a_descriptor_that_is_no_long_payload_is_cut_off_and_closed(
    target: Target, make: Callable[[], int], length: int
) -> None:
    with target.attacker() as raw:
        descriptor = make()
        write(raw.control, struct.pack("<II", 1, length), [descriptor])
        assert raw.is_cut_off()
        os.close(descriptor)


def test_descriptors_with_a_trap_that_takes_none_are_closed(target: Target) -> None:
    with target.attacker() as raw:
        for trap in (t.TASK_SELF.pack(), t.NAMES.pack(0), t.FILEPORT_MAKEFD.pack(5)):
            assert raw.trap(trap, [0, 0, 0])
        assert t.number_of(raw.trap(t.FILEPORT_MAKEPORT.pack())) == c.KERN_INVALID_ARGUMENT
        assert t.number_of(raw.trap(t.FILEPORT_MAKEPORT.pack(), [0, 0])) == c.KERN_INVALID_ARGUMENT


# Traps


@FUZZ
@given(number=st.sampled_from([trap.number for trap in ANSWERED]), rest=st.binary(max_size=48))
def test_any_bytes_after_the_number_of_a_trap_are_answered_or_cut_off(target: Target, number: int, rest: bytes) -> None:
    with target.attacker() as raw:
        raw.trap(struct.pack("<I", number) + rest)


@FUZZ
@given(rest=st.binary(max_size=48), count=st.integers(0, 3))
def test_any_bytes_after_a_note_are_passed_over_or_cut_off(target: Target, rest: bytes, count: int) -> None:
    with target.attacker() as raw:
        for note in (t.INTERRUPT, t.FORGET, t.CLOSE):
            payload = note.pack() + rest
            write(raw.control, struct.pack("<II", 0, len(payload)) + payload, [0] * count)
        packet_ends(raw)


@FUZZ
@given(data=st.binary(max_size=64))
def test_any_payload_is_answered_or_cut_off(target: Target, data: bytes) -> None:
    with target.attacker() as raw:
        packet.send(raw.control, data)
        packet_ends(raw)


words = st.one_of(st.integers(0, 40), st.sampled_from([2**31 - 1, 2**31, 2**32 - 1]), st.integers(0, 2**32 - 1))
calls = st.lists(
    st.tuples(
        st.sampled_from(ANSWERED),
        st.lists(st.one_of(words, st.integers(-20, -1)), min_size=8, max_size=8),
        st.lists(words, max_size=6),
    ),
    min_size=1,
    max_size=12,
)


@FUZZ
@given(calls=calls)
def test_any_calls_on_real_names_are_answered_and_never_cut_off(
    target: Target, calls: list[tuple[t.Trap, list[int], list[int]]]
) -> None:
    with target.attacker() as raw:
        names = names_of(raw)
        for trap, values, words in calls:
            arguments = []
            for field, value in zip((f for f in trap.fields if f != "words"), values, strict=False):
                # A negative number picks one of the names.
                if value < 0 and field not in ("delta", "srdelta"):
                    value = names[value % len(names)]
                if field in ("delta", "srdelta"):
                    value = (value + 2**31) % 2**32 - 2**31
                arguments.append(value)
            if trap.fields[:1] == ("task",) and values[-1] % 4:
                arguments[0] = names[0]
            if trap in (t.TASK_TERMINATE, t.THREAD, t.ABANDON, t.SEND_MANY, t.ASYNC, t.CANCEL):
                continue
            if trap is t.RECEIVE_MANY:
                # It would wait, and nobody sends.
                arguments[0] |= c.MACH_RCV_TIMEOUT
                arguments[3] = 0
            answer = raw.trap(trap.pack(*arguments, words=words if "words" in trap.fields else ()))
            assert answer, (trap.call, arguments, words)


sizes = st.one_of(st.integers(0, 200), st.sampled_from([2**31, 2**32 - 1]))


@FUZZ
@given(
    head=st.tuples(st.integers(0, 2**32 - 1), sizes, sizes, words, words, st.integers(0, 3)),
    rest=st.binary(max_size=200),
)
def test_mach_msg_with_lying_sizes_is_answered_or_cut_off(target: Target, head: tuple[int, ...], rest: bytes) -> None:
    with target.attacker() as raw:
        option, send_size, rcv_size, name, timeout, regions = head
        option |= c.MACH_SEND_TIMEOUT | c.MACH_RCV_TIMEOUT
        raw.trap(struct.pack("<7I", t.MACH_MSG, option, send_size, rcv_size, name, timeout & 1, regions) + rest)


descriptors = st.lists(
    st.builds(
        layout.Descriptor,
        type=st.integers(0, 4),
        disposition=st.integers(15, 22),
        name=st.integers(0, 7),
        address=st.just(0),
        size=st.integers(0, 3),
        deallocate=st.integers(0, 2),
        copy=st.integers(0, 3),
    ),
    max_size=4,
)


@FUZZ
@given(
    option=st.integers(0, 2**32 - 1),
    header=st.tuples(*[st.integers(0, 23)] * 3, *[st.integers(0, 8)] * 3, st.integers(60, 75)),
    descriptors=descriptors,
    inline=st.binary(max_size=12),
    limit=st.integers(0, 200),
)
def test_messages_of_all_sorts_to_all_sorts_of_names_are_answered_and_never_cut_off(
    target: Target,
    option: int,
    header: tuple[int, ...],
    descriptors: list[layout.Descriptor],
    inline: bytes,
    limit: int,
) -> None:
    with target.attacker() as raw:
        names = [*names_of(raw), c.MACH_PORT_NULL, c.MACH_PORT_DEAD, 0x999903]
        remote_type, local_type, voucher_type, remote, local, source, id = header
        memory = [
            struct.pack("<I", names[d.name]) * d.size if d.type == 2 else bytes(d.size)
            for d in descriptors
            if d.type != c.MACH_MSG_PORT_DESCRIPTOR
        ]
        buffer = layout.pack(
            layout.bits(remote_type, local_type) | voucher_type // 22 << 16,
            names[remote],
            names[local],
            id,
            descriptors=[d._replace(name=names[d.name]) for d in descriptors],
            inline=inline,
        )
        option |= c.MACH_SEND_MSG | c.MACH_SEND_TIMEOUT | c.MACH_RCV_TIMEOUT
        for _ in range(3):
            assert raw.trap(t.MsgTrap(option, buffer, memory, limit, names[source], 0).pack())


def test_a_second_trap_while_one_is_under_way_is_cut_off(target: Target) -> None:
    with target.attacker() as raw:
        port = raw.call(t.REPLY_PORT)[0]
        packet.send(raw.control, t.MsgTrap(c.MACH_RCV_MSG, rcv_name=port, rcv_limit=100).pack())
        packet.send(raw.control, t.TASK_SELF.pack())
        assert raw.is_cut_off()


def test_an_interruption_when_nothing_waits_is_passed_over(target: Target) -> None:
    with target.attacker() as raw:
        for _ in range(10):
            packet.send(raw.control, t.INTERRUPT.pack())
        raw.call(t.TASK_SELF)


def test_a_client_that_never_reads_is_left_alone_and_costs_nobody_else(target: Target) -> None:
    with target.attacker() as raw:
        me, thread = raw.call(t.TASK_SELF)[0], raw.thread()
        for _ in range(3000):
            raw.call(t.REPLY_PORT)
        # Long answers to short questions: it is not even asked any more when its answers do not fit.
        for _ in range(flood(target, thread, t.NAMES.pack(me))):
            assert len(RawTask.read(thread)) == 4 + 8 * 3001
        thread.close()


def test_descriptors_in_answers_that_are_not_read_are_not_kept(target: Target) -> None:
    with target.attacker() as raw:
        flood(target, raw.control, t.THREAD.pack())


def test_descriptors_in_answers_that_are_read_late_are_not_kept(target: Target) -> None:
    with target.attacker() as raw:
        for _ in range(flood(target, raw.control, t.THREAD.pack())):
            assert t.number_of(RawTask.read(raw.control)) == 0


def test_a_file_in_an_answer_that_waits_to_be_read_is_still_that_file(target: Target) -> None:
    with target.attacker() as raw, tempfile.TemporaryFile() as secret, tempfile.TemporaryFile() as public:
        other = raw.thread()
        answer = raw.trap(t.FILEPORT_MAKEPORT.pack(), [public.fileno()])
        port = t.FILEPORT_MAKEPORT.unpack_answer(answer)[0][0]
        written = flood(target, other, t.FILEPORT_MAKEFD.pack(port))
        # The last right goes, and the daemon's descriptor may be that of another file now.
        raw.call(t.DEALLOCATE, raw.call(t.TASK_SELF)[0], port)
        with target.good.fileport(secret.fileno()):
            inodes = set()
            for _ in range(written):
                received = packet.receive(other)
                assert received is not None
                inodes |= {os.fstat(descriptor).st_ino for descriptor in received[1]}
                packet.close_all(received[1])
        other.close()
        assert inodes == {os.fstat(public.fileno()).st_ino}


def test_threads_without_number_are_refused_when_descriptors_run_out(socket_path: Path) -> None:
    def lower_limit() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))

    with DaemonProcess(socket_path, preexec_fn=lower_limit) as daemon:
        target = Target(daemon)
        with target.attacker() as raw:
            threads = []
            answer: t.Buffer = b"\0\0\0\0"
            while t.number_of(answer) == 0:
                packet.send(raw.control, t.THREAD.pack())
                received = packet.receive(raw.control)
                assert received is not None
                answer, descriptors = received
                threads += descriptors
                assert len(threads) < 256
            assert t.number_of(answer) == c.KERN_RESOURCE_SHORTAGE
            target.check()
            packet.close_all(threads)
        target.good.close()


# The bootstrap service


def ask_bootstrap(
    raw: RawTask, id: int, inline: bytes, rights: Sequence[layout.Descriptor] = (), memory: Sequence[bytes] = ()
) -> bytes:
    """A message to the bootstrap port, and what it answers; b"" if it could not be sent."""
    me = raw.call(t.TASK_SELF)[0]
    bootstrap = raw.call(t.GET_SPECIAL_PORT, me, c.TASK_BOOTSTRAP_PORT)[0]
    reply = raw.call(t.REPLY_PORT)[0]
    bits = layout.bits(c.MACH_MSG_TYPE_COPY_SEND, c.MACH_MSG_TYPE_MAKE_SEND_ONCE)
    buffer = layout.pack(bits, bootstrap, reply, id, descriptors=rights, inline=inline)
    trap = t.MsgTrap(c.MACH_SEND_MSG | c.MACH_RCV_MSG, buffer, memory, 10_000, reply)
    answer = t.unpack_msg_answer(raw.trap(trap.pack()))
    return bytes(answer.buffer or b"")


@pytest.mark.parametrize("id", [*range(64, 78), 0, 2**32 - 1, 2**32 - 50])
def test_a_forged_notification_forgets_no_service(target: Target, id: int) -> None:
    with target.good.check_in(f"service {id}"), target.attacker() as raw:
        for name in range(0, 0x2000, 0x100):
            ask_bootstrap(raw, id, layout.NDR + (name | 3).to_bytes(4, "little"))
        target.good.look_up(f"service {id}").close()


@FUZZ
@given(
    id=st.sampled_from([CHECK_IN, REGISTER, LOOK_UP, 72, 71, 0, 502]),
    inline=st.one_of(st.binary(max_size=200), st.just(pack_name("fuzz")), st.just(bytes(5000))),
    rights=st.lists(st.tuples(st.integers(0, 4), st.integers(16, 21)), max_size=3),
    array=st.one_of(st.none(), st.lists(st.integers(0, 4), max_size=3)),
)
def test_any_request_to_the_bootstrap_port_is_answered_and_leaves_nothing(
    target: Target, id: int, inline: bytes, rights: list[tuple[int, int]], array: list[int] | None
) -> None:
    with target.good.check_in("steady"):
        with target.attacker() as raw:
            names = names_of(raw)
            # Not its own port: a service registered for that would never die.
            del names[1]
            rights = [(names[index], disposition) for index, disposition in rights]
            sent = [layout.port_descriptor(*right) for right in rights]
            region = []
            if array is not None:
                sent.append(layout.port_array_descriptor(len(array), c.MACH_MSG_TYPE_COPY_SEND))
                region.append(b"".join(names[index].to_bytes(4, "little") for index in array))
            ask_bootstrap(raw, id, inline[: len(inline) // 4 * 4], sent, region)
        target.good.look_up("steady").close()
    with pytest.raises(machport.InvalidName):
        target.good.look_up("fuzz")


def test_receive_rights_and_arrays_sent_to_the_bootstrap_port_are_given_up(target: Target) -> None:
    notices, port = target.good.allocate(), target.good.allocate()
    sender = port.make_send()
    sender.request_dead_name(notices)
    assert target.good.bootstrap is not None
    target.good.bootstrap.send(pack_name("x"), id=REGISTER, rights=[port.move(), sender.copy(), sender.copy()])
    assert isinstance(notices.receive(PATIENCE), machport.DeadNameNotification)
    sender.close()
    notices.close()


def test_a_request_without_a_reply_port_keeps_no_service(target: Target) -> None:
    assert target.good.bootstrap is not None
    me = target.good.name
    for id in (CHECK_IN, LOOK_UP, REGISTER):
        bootstrap = target.good.calls.task_get_special_port(me, c.TASK_BOOTSTRAP_PORT)
        buffer = layout.pack(c.MACH_MSG_TYPE_MOVE_SEND, bootstrap, id=id, inline=pack_name("silent"))
        assert target.good.calls.mach_msg(t.MsgTrap(c.MACH_SEND_MSG, buffer)).code == 0
    with pytest.raises(machport.InvalidName):
        target.good.look_up("silent")


def test_a_reply_to_the_bootstrap_port_itself_or_to_a_service_does_no_harm(target: Target) -> None:
    me = target.good.name
    with target.good.check_in("echo") as service:
        echo = target.good.look_up("echo")
        for reply in (target.good.calls.task_get_special_port(me, c.TASK_BOOTSTRAP_PORT), echo.name):
            for id in (LOOK_UP, CHECK_IN, REGISTER, 7):
                bootstrap = target.good.calls.task_get_special_port(me, c.TASK_BOOTSTRAP_PORT)
                bits = layout.bits(c.MACH_MSG_TYPE_COPY_SEND, c.MACH_MSG_TYPE_COPY_SEND)
                buffer = layout.pack(bits, bootstrap, reply, id=id, inline=pack_name("echo"))
                assert target.good.calls.mach_msg(t.MsgTrap(c.MACH_SEND_MSG, buffer)).code == 0
        assert service.status().msgcount == 4
        target.good.look_up("echo").close()
        echo.close()


def test_a_service_registered_by_a_client_that_is_gone_is_forgotten(target: Target) -> None:
    with target.attacker() as raw:
        port = raw.call(t.REPLY_PORT)[0]
        right = layout.port_descriptor(port, c.MACH_MSG_TYPE_MAKE_SEND)
        assert ask_bootstrap(raw, REGISTER, pack_name("short-lived"), [right])[32:36] == bytes(4)
        target.good.look_up("short-lived").close()
    with pytest.raises(machport.InvalidName):
        target.good.look_up("short-lived")
