"""Random calls of three tasks: whatever they do, rights add up and nothing is lost.

A refused call changes nothing.  No send-once right of a living port goes without a message there (N50).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from kernel_driver import (
    DEAD,
    DEAD_NAME,
    DISPOSITIONS,
    MAKE_SEND,
    MOVE_SEND_ONCE,
    NOTHING,
    NULL,
    PORT_SET,
    RECEIVE,
    RECEIVE_RIGHT,
    SEND,
    SEND_ONCE,
    Actor,
    three_tasks,
)

from machport.abi import constants as c
from machport.abi import message as layout
from machport.kernel import messages, ports, tasks
from machport.kernel.dialect import GNUMACH, MANUAL, Dialect
from machport.kernel.invariants import check
from machport.kernel.port import Port
from machport.kernel.refusal import Refusal
from machport.kernel.rights import has_right_for
from machport.kernel.waiter import Waiter

WHO = st.integers(0, 2)
NAME = st.integers(0, 40)
HOW = st.integers(0, 30)
SENDING = DISPOSITIONS[1:]
SENDS = SEND | SEND_ONCE | DEAD_NAME
ALIVE = SEND | SEND_ONCE | RECEIVE
COUNT = st.sampled_from([0, 1, 2, 3, 0xFFFFFFFF])
DELTA = st.sampled_from([-1, -1, -1, 1, 1, 0, 2, -2, -7, 65533])
VARIANTS = st.sampled_from([72, 72, 72, 70, 70, 69, 69, 66, 66, 65, 71])
RIGHTS_IN_BODY = st.lists(st.tuples(NAME, HOW), max_size=3)
OPTIONS = st.sampled_from([0, c.MACH_SEND_TIMEOUT, c.MACH_SEND_NOTIFY, c.MACH_SEND_NOTIFY | c.MACH_SEND_TIMEOUT])
LIMITS = st.sampled_from([0, 36, 60, 1 << 16, 1 << 16, 1 << 16])

#: Set in the codes of receives, not in those of sends.
RECEIVE_CODE = 0x4000
#: Codes after which everything is as before the call (section 9 of messages).
NOTHING_HAPPENED = frozenset(
    (
        c.MACH_SEND_MSG_TOO_SMALL,
        c.MACH_SEND_TOO_LARGE,
        c.MACH_SEND_INVALID_DATA,
        c.MACH_SEND_INVALID_TYPE,
        c.MACH_SEND_INVALID_HEADER,
        c.MACH_SEND_INVALID_DEST,
        c.MACH_SEND_INVALID_REPLY,
        c.MACH_RCV_INVALID_NAME,
        c.MACH_RCV_IN_SET,
        c.MACH_RCV_TIMED_OUT,
    )
)


class KernelMachine(RuleBasedStateMachine):
    """Names are picked by number from those that a task has, so that most calls find something."""

    dialect: ClassVar[Dialect]

    def __init__(self) -> None:
        super().__init__()
        self.actors = list(three_tasks(self.dialect, name_limit=24))
        self.world = self.actors[0].world
        self.known: set[Port] = set()
        self.leaked: Counter[Port] = Counter()
        self.waiters: list[Waiter] = []
        self.born = 0

    @initialize()
    def everybody_knows_everybody(self) -> None:
        for actor in self.actors:
            name = actor.port_with_send()
            actor.set_qlimit(name, 1)
            for other in self.actors:
                if other is not actor:
                    other.take(actor, name, MAKE_SEND)

    # Picking

    def name(self, who: int, number: int, wanted: int = 0) -> int:
        """Mostly a name with one of the rights wanted."""
        entries = self.actors[who].task.space.entries
        names = sorted(name for name, entry in entries.items() if entry.type & wanted and number > 5)
        names = names or sorted(entries)
        if number < 3 or not names:
            return (NULL, DEAD, NOTHING)[number % 3]
        return names[number % len(names)]

    def disposition(self, who: int, name: int, number: int, among: Sequence[int] = DISPOSITIONS) -> int:
        """Mostly one that fits the name."""
        entry = self.actors[who].task.space.lookup(name)
        if entry is not None and number < 28:
            fitting = [disposition for disposition in among if has_right_for(entry, disposition)]
            if fitting:
                return fitting[number % len(fitting)]
        return DISPOSITIONS[number % 6]

    # Doing

    def do(self, call: Callable[[], Any], *, consumes: bool = False) -> None:
        """Make a call; check what a refusal left and what became of send-once rights."""
        before = self.world.snapshot()
        counts = {port: port.sorights for port in self.known if port.active}
        places = {(who, port.name): port for port in counts for who in self.holder(port)}
        excused = {port.pd_request for port in counts if port.pd_request is not None}
        waiting = list(self.waiters)
        try:
            made = call()
        except Refusal:
            if not consumes:
                assert self.world.snapshot() == before
            made = None
        if isinstance(made, Waiter):
            self.waiters.append(made)
            waiting.append(made)
            if made.result is not None and made.result.code in NOTHING_HAPPENED and not made.option & c.MACH_SEND_MSG:
                assert self.world.snapshot() == before
        used = Counter(place for waiter in waiting for place in self.consumed(waiter, places))
        self.waiters = [waiter for waiter in self.waiters if waiter.result is None]
        for port, count in counts.items():
            if port.active and port not in excused:
                assert port.sorights >= count - used[port]

    def holder(self, port: Port) -> list[int]:
        return [index for index, actor in enumerate(self.actors) if port.receiver is actor.task.space]

    def consumed(self, waiter: Waiter, places: dict[tuple[int, int], Port]) -> list[Port]:
        """The port at which a finished receive used up a send-once right, if it did."""
        result = waiter.result
        if result is None or result.buffer is None or (result.code and not result.code & RECEIVE_CODE):
            return []
        bits, _, _, local, _, _ = layout.HEADER.unpack_from(result.buffer)
        if bits >> 8 & 0x1F != MOVE_SEND_ONCE:
            return []
        for index, actor in enumerate(self.actors):
            if actor.task is waiter.task and (index, local) in places:
                return [places[index, local]]
        return []

    # Names and references

    @rule(who=WHO, right=st.sampled_from([0, 3, 3, 4, 6]))
    def allocate(self, who: int, right: int) -> None:
        self.do(lambda: self.actors[who].allocate(right))

    @rule(
        who=WHO, qlimit=st.integers(0, 2), flags=st.sampled_from([c.MPO_QLIMIT, c.MPO_QLIMIT | c.MPO_INSERT_SEND_RIGHT])
    )
    def construct(self, who: int, qlimit: int, flags: int) -> None:
        """Queues that are soon full."""
        self.do(lambda: self.world.call(ports.mach_port_construct, self.actors[who].task, flags, qlimit, 0))

    @rule(who=WHO, right=st.sampled_from([1, 3, 4]), name=st.integers(0x103, 0x10B))
    def allocate_name(self, who: int, right: int, name: int) -> None:
        self.do(lambda: self.actors[who].allocate_name(name, right))

    @rule(who=WHO, old=NAME, new=st.integers(0x107, 0x117))
    def rename(self, who: int, old: int, new: int) -> None:
        self.do(lambda: self.actors[who].rename(self.name(who, old), new))

    @rule(who=WHO, name=NAME)
    def deallocate(self, who: int, name: int) -> None:
        self.do(lambda: self.actors[who].deallocate(self.name(who, name, SENDS)))

    @rule(who=WHO, name=NAME)
    def destroy(self, who: int, name: int) -> None:
        self.do(lambda: self.actors[who].destroy(self.name(who, name)))

    @rule(who=WHO, name=NAME, right=st.integers(0, 5), delta=DELTA)
    def mod_refs(self, who: int, name: int, right: int, delta: int) -> None:
        chosen = self.name(who, name, 1 << 16 + right)
        saved = self.saved(who, chosen) if right == RECEIVE_RIGHT and delta == -1 else None
        self.do(lambda: self.actors[who].mod_refs(chosen, right, delta))
        self.note_leak(who, chosen, saved)

    @rule(who=WHO, name=NAME, delta=st.sampled_from([0, -1]), guard=st.sampled_from([0, 5]))
    def destruct(self, who: int, name: int, delta: int, guard: int) -> None:
        chosen = self.name(who, name, RECEIVE)
        saved = self.saved(who, chosen)
        self.do(lambda: self.world.call(ports.mach_port_destruct, self.actors[who].task, chosen, delta, guard))
        self.note_leak(who, chosen, saved)

    def saved(self, who: int, name: int) -> Port | None:
        """The port of a send and receive right that a port-destroyed request is there to save."""
        entry = self.actors[who].task.space.lookup(name)
        if entry is None or entry.port is None or not entry.type & SEND or not entry.type & RECEIVE:
            return None
        return entry.port if entry.port.pd_request is not None else None

    def note_leak(self, who: int, name: int, port: Port | None) -> None:
        """In GNU Mach the send right turned into a dead name that the port goes on counting (D7)."""
        entry = self.actors[who].task.space.entries.get(name)
        if port is not None and self.dialect.saved_port_deadens_send and entry is not None and entry.port is None:
            self.leaked[port] += 1

    # Rights between tasks

    @rule(caller=WHO, who=WHO, name=st.integers(0x103, 0x113), right=NAME, how=HOW)
    def insert_right(self, caller: int, who: int, name: int, right: int, how: int) -> None:
        chosen = self.name(caller, right)
        disposition = self.disposition(caller, chosen, how)
        self.do(lambda: self.actors[who].insert(name, chosen, disposition, caller=self.actors[caller]), consumes=True)

    @rule(who=WHO, name=NAME)
    def make_send_under_the_same_name(self, who: int, name: int) -> None:
        chosen = self.name(who, name, RECEIVE)
        self.do(lambda: self.actors[who].insert(chosen, chosen, MAKE_SEND), consumes=True)

    @rule(caller=WHO, who=WHO, name=NAME, how=HOW)
    def extract_right(self, caller: int, who: int, name: int, how: int) -> None:
        chosen = self.name(who, name)
        disposition = self.disposition(who, chosen, how)
        self.do(lambda: self.actors[caller].take(self.actors[who], chosen, disposition), consumes=True)

    @rule(caller=WHO, who=WHO, name=NAME, variant=VARIANTS, sync=COUNT, notify=NAME, how=HOW)
    def request_notification(
        self, caller: int, who: int, name: int, variant: int, sync: int, notify: int, how: int
    ) -> None:
        wanted = SENDS | RECEIVE if variant in (66, 72) else RECEIVE
        chosen, told = self.name(who, name, wanted), self.name(caller, notify, RECEIVE | SEND_ONCE)
        disposition = self.disposition(caller, told, how)
        if disposition not in (c.MACH_MSG_TYPE_MAKE_SEND_ONCE, MOVE_SEND_ONCE) and how < 25:
            disposition = c.MACH_MSG_TYPE_MAKE_SEND_ONCE
        if variant == 69 and how < 28:
            sync = 0
        self.do(
            lambda: self.actors[who].request(
                variant, chosen, told, sync=sync, how=disposition, caller=self.actors[caller]
            ),
            consumes=True,
        )

    # Receive rights, sets, tasks

    @rule(who=WHO, name=NAME, qlimit=st.integers(0, 4))
    def set_qlimit(self, who: int, name: int, qlimit: int) -> None:
        self.do(lambda: self.actors[who].set_qlimit(self.name(who, name, RECEIVE), qlimit))

    @rule(who=WHO, name=NAME, count=COUNT)
    def set_counts(self, who: int, name: int, count: int) -> None:
        chosen = self.name(who, name, RECEIVE)
        self.do(lambda: self.actors[who].set_mscount(chosen, count))
        self.do(lambda: self.actors[who].set_seqno(chosen, count))

    @rule(who=WHO, member=NAME, after=NAME)
    def move_member(self, who: int, member: int, after: int) -> None:
        self.do(lambda: self.actors[who].move_member(self.name(who, member, RECEIVE), self.name(who, after, PORT_SET)))

    @rule(caller=WHO, who=WHO, name=NAME, names=st.lists(NAME, max_size=4), which=st.integers(0, 6))
    def odd_calls(self, caller: int, who: int, name: int, names: list[int], which: int) -> None:
        """Those that deserve no rule of their own."""

        def call(function: Callable[..., Any], *arguments: Any) -> Any:
            return self.world.call(function, self.actors[caller].task, *arguments)

        def call_on(function: Callable[..., Any], *arguments: Any) -> Any:
            return call(function, self.actors[who].task, *arguments)

        receive, send = self.name(caller, name, RECEIVE), self.name(caller, name, SENDS)
        several = [self.name(caller, number, SENDS) for number in names]
        calls: list[Callable[[], Any]] = [
            lambda: call(ports.mach_port_guard, receive, 5, len(names) > 2),
            lambda: call(ports.mach_port_unguard, receive, 5),
            lambda: call_on(tasks.mach_ports_register, several),
            lambda: call_on(tasks.mach_ports_lookup),
            lambda: call_on(tasks.task_set_special_port, c.TASK_BOOTSTRAP_PORT, send),
            lambda: call_on(tasks.task_get_special_port, c.TASK_BOOTSTRAP_PORT),
            lambda: call(tasks.make_object, object()),
        ]
        self.do(calls[which])

    @rule(who=WHO, sure=st.integers(0, 3))
    def terminate(self, who: int, sure: int) -> None:
        """Another task takes the place of the one that ends, and gets to know somebody."""
        if sure:
            return
        self.do(lambda: self.actors[who].terminate())
        self.born += 1
        self.replace(who)

    def replace(self, who: int) -> None:
        """A new task for one that has ended."""
        assert not self.actors[who].task.space.entries
        assert not self.actors[who].task.waiters
        self.actors[who] = Actor(self.world, f"task {self.born}")
        self.actors[who].take(self.actors[who], self.actors[who].port(), MAKE_SEND)

    # Messages

    def buffer(self, who: int, remote: int, how: int, reply: int, reply_how: int, body: list[tuple[int, int]]) -> bytes:
        to, back = self.name(who, remote, ALIVE), self.name(who, reply, RECEIVE)
        back_disposition = self.disposition(who, back, reply_how, SENDING) if back else 0
        carried = [(self.name(who, name, RECEIVE if number % 2 else 0), number) for name, number in body]
        return layout.pack(
            layout.bits(self.disposition(who, to, how, SENDING), back_disposition),
            to,
            back,
            1,
            descriptors=[layout.port_descriptor(name, self.disposition(who, name, how)) for name, how in carried],
            inline=b"data" * (how % 3),
        )

    @rule(who=WHO, remote=NAME, how=HOW, reply=NAME, reply_how=HOW, body=RIGHTS_IN_BODY, option=OPTIONS)
    def send(
        self, who: int, remote: int, how: int, reply: int, reply_how: int, body: list[tuple[int, int]], option: int
    ) -> None:
        buffer = self.buffer(who, remote, how, reply, reply_how, body)
        before = self.world.snapshot()
        waiters: list[Waiter] = []

        def send() -> Waiter:
            waiters.append(self.actors[who].mach_msg(c.MACH_SEND_MSG | option, buffer))
            return waiters[-1]

        self.do(send)
        result = waiters[0].result
        if result is not None and result.code in NOTHING_HAPPENED:
            assert self.world.snapshot() == before

    @rule(who=WHO, remote=NAME, names=st.lists(NAME, max_size=3), how=HOW)
    def send_array(self, who: int, remote: int, names: list[int], how: int) -> None:
        to = self.name(who, remote, ALIVE)
        chosen = [self.name(who, name) for name in names]
        disposition = self.disposition(who, chosen[0], how) if chosen else MAKE_SEND
        buffer = layout.pack(
            layout.bits(self.disposition(who, to, how, SENDING)),
            to,
            descriptors=[layout.memory_descriptor(3), layout.port_array_descriptor(len(chosen), disposition)],
        )
        array = b"".join(name.to_bytes(4, "little") for name in chosen)
        option = c.MACH_SEND_MSG | c.MACH_SEND_TIMEOUT
        self.do(lambda: self.actors[who].mach_msg(option, buffer, memory=(b"abc", array)))

    @rule(who=WHO, name=NAME, limit=LIMITS, large=st.booleans(), wait=st.integers(0, 3))
    def receive(self, who: int, name: int, limit: int, large: bool, wait: int) -> None:
        option = c.MACH_RCV_MSG | c.MACH_RCV_LARGE * large | (c.MACH_RCV_TIMEOUT if wait else 0)
        source = self.name(who, name, RECEIVE | PORT_SET)
        self.do(lambda: self.actors[who].mach_msg(option, rcv_limit=limit, rcv_name=source))

    @rule(who=WHO, remote=NAME, how=HOW, reply=NAME, body=RIGHTS_IN_BODY, wait=st.booleans())
    def call(self, who: int, remote: int, how: int, reply: int, body: list[tuple[int, int]], wait: bool) -> None:
        """Send and receive at the reply port."""
        source = self.name(who, reply, RECEIVE)
        buffer = self.buffer(who, remote, how, reply, 20, body)
        timeout = 0 if wait else c.MACH_SEND_TIMEOUT | c.MACH_RCV_TIMEOUT
        option = c.MACH_SEND_MSG | c.MACH_RCV_MSG | timeout
        self.do(lambda: self.actors[who].mach_msg(option, buffer, rcv_limit=1 << 16, rcv_name=source))

    @rule(index=st.integers(0, 9), interrupted=st.booleans())
    def give_up(self, index: int, interrupted: bool) -> None:
        if self.waiters:
            index %= len(self.waiters)
            waiter = self.waiters[index]
            end = messages.interrupt if interrupted else messages.expire
            self.do(lambda: self.world.call(end, self.waiters[index]))
            assert waiter.result is not None

    # What is always true

    @invariant()
    def rights_add_up(self) -> None:
        self.world.kernel.take_released()
        check(self.world.kernel, self.known, self.leaked)


class ManualMachine(KernelMachine):
    dialect = MANUAL


class GnuMachMachine(KernelMachine):
    dialect = GNUMACH


_PROFILE = settings(
    max_examples=150,
    stateful_step_count=50,
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)

TestManual = ManualMachine.TestCase
TestManual.settings = _PROFILE
TestGnuMach = GnuMachMachine.TestCase
TestGnuMach.settings = _PROFILE
