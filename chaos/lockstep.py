"""The same calls on an embedded kernel and on a daemon with real clients: the same answers, messages and states.

A hypothesis state machine makes them: three tasks with rights of every kind, sets, all dispositions, memory and arrays,
notifications, calls that are blocked, interrupted, cancelled or given up, deposits and children, and processes that
are closed, stopped and killed.  After each step both kernels hold the same, their rights add up, and every send-once
right gave one message.  What fails is made as short as it can be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import ClassVar, Final, Self

from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis import seed as with_seed
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from chaos.checked_daemon import CheckedDaemon
from chaos.report import Report
from chaos.twins import Member, Twins
from machport.abi import constants as c
from machport.abi import message as layout
from machport.abi import traps as t
from machport.abi.bootstrap import CHECK_IN, LOOK_UP, REGISTER, pack_name
from machport.kernel import phase
from machport.kernel.port import PortSet
from machport.kernel.rights import has_right_for
from machport.kernel.task import Task
from machport.testing.machine import Call

#: Steps after which both kernels were compared.
AMOUNT: Final = 100_000
UNIT: Final = "steps"
#: Rules of one example.
LENGTH: Final = 80
_EXAMPLES: Final = 50
_NAME_LIMIT: Final = 40
_TASKS: Final = 3
_BLOCKED_MAX: Final = 4

SEND, SEND_ONCE, RECEIVE = c.MACH_PORT_TYPE_SEND, c.MACH_PORT_TYPE_SEND_ONCE, c.MACH_PORT_TYPE_RECEIVE
SET_TYPE, DEAD_NAME = c.MACH_PORT_TYPE_PORT_SET, c.MACH_PORT_TYPE_DEAD_NAME
SENDS: Final = SEND | SEND_ONCE | DEAD_NAME
ALIVE: Final = SEND | SEND_ONCE | RECEIVE
MAKE_SEND, COPY_SEND = c.MACH_MSG_TYPE_MAKE_SEND, c.MACH_MSG_TYPE_COPY_SEND
MAKE_SEND_ONCE, MOVE_SEND_ONCE = c.MACH_MSG_TYPE_MAKE_SEND_ONCE, c.MACH_MSG_TYPE_MOVE_SEND_ONCE
DISPOSITIONS: Final = (16, 17, 18, 19, 20, 21)
SENDING: Final = DISPOSITIONS[1:]
ODD_NAMES: Final = (c.MACH_PORT_NULL, c.MACH_PORT_DEAD, 0xDEAD00)

WHO = st.integers(0, _TASKS - 1)
NAME = st.integers(0, 40)
HOW = st.integers(0, 30)
COUNT = st.sampled_from([0, 1, 2, 3, 0xFFFFFFFF])
DELTA = st.sampled_from([-1, -1, -1, 1, 1, 0, 2, -2, -7, 65533])
VARIANTS = st.sampled_from([72, 72, 72, 70, 70, 69, 69, 66, 66, 65, 71])
RIGHTS_IN_BODY = st.lists(st.tuples(NAME, HOW), max_size=3)
SEND_OPTIONS = st.sampled_from(
    [0, c.MACH_SEND_TIMEOUT, c.MACH_SEND_NOTIFY, c.MACH_SEND_NOTIFY | c.MACH_SEND_TIMEOUT, c.MACH_SEND_INTERRUPT]
)
TRAILERS = st.sampled_from([0, 1, 2, 3, 7]).map(lambda kind: kind << c.MACH_RCV_TRAILER_ELEMENTS_SHIFT)
LIMITS = st.sampled_from([0, 36, 60, 1 << 16, 1 << 16, 1 << 16])
WAYS = st.sampled_from(["thread", "thread", "tag", "soon"])


def run(report: Report) -> None:
    """Compare as many steps as were asked for."""
    examples = 0
    with _Stage() as stage:
        Lockstep.stage = stage
        while stage.steps < report.amount and not report.anomalies:
            examples += _run(report, report.seed + examples)
        report.anomalies += stage.close()
    report.figure("steps", stage.steps, f"{report.amount:g}", stage.steps >= report.amount)
    report.figure("examples", examples)
    for what, count in sorted(stage.tally.items()):
        report.figure(what, count)
    report.figure("differences", len(report.anomalies), "0", not report.anomalies)


def _run(report: Report, seed: int) -> int:
    left = int(report.amount) - Lockstep.stage.steps
    examples = min(_EXAMPLES, left // (LENGTH * 2) + 1)
    profile = settings(
        max_examples=examples,
        stateful_step_count=LENGTH,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.normal,
    )
    try:
        run_state_machine_as_test(with_seed(seed)(Lockstep), settings=profile)
    except BaseException as error:
        notes = "\n".join(getattr(error, "__notes__", ()))
        report.anomaly(f"seed {seed}: {type(error).__name__}: {error}\n{notes}")
        if not isinstance(error, Exception):
            raise
    return examples


class _Stage:
    """Two kernels for one example after the other, and new ones after a difference.

    Attributes:
        steps, tally: of all of them.
    """

    def __init__(self) -> None:
        self.tally: Counter[str] = Counter()
        self.steps = 0
        self._begin()

    def _begin(self) -> None:
        self._daemon = CheckedDaemon(name_limit=_NAME_LIMIT)
        self._before = self._daemon.look().descriptors
        self._twins = Twins(self._daemon, _NAME_LIMIT)

    def twins(self) -> Twins:
        """Two kernels that hold the same."""
        if not self._twins.is_sound:
            self.close()
            self._begin()
        return self._twins

    def count(self) -> None:
        """Take over what was counted."""
        self.tally += self._twins.tally
        self.steps += self._twins.steps
        self._twins.tally.clear()
        self._twins.steps = 0

    def close(self) -> list[str]:
        """End both; what was wrong with the daemon, if anything."""
        if self._daemon.closed:
            return []
        left = self._daemon.look()
        self._twins.end()
        faults = self._daemon.close()
        if self._twins.is_sound and left.descriptors > self._before + 16:
            faults.append(f"{self._before} descriptors of the daemon became {left.descriptors}")
        return faults

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Lockstep(RuleBasedStateMachine):
    """Names are picked by number from those that a task has, so that most calls find something."""

    stage: ClassVar[_Stage]

    def __init__(self) -> None:
        super().__init__()
        self.twins = self.stage.twins()
        self.members: list[Member] = []
        self.deposits: list[bytes] = []
        #: Tickets of children, each with its maker and the child's name there.
        self.children: list[tuple[Member, int, bytes]] = []
        self.born = 0

    @initialize()
    def everybody_knows_everybody(self) -> None:
        """By the service of names."""
        for _ in range(_TASKS):
            self.born += 1
            self.members.append(self.twins.join(f"task{self.born}"))
        for index in range(_TASKS):
            self.enter(index)

    def enter(self, index: int) -> None:
        """A new task gets to know itself and the others, and they get a right to it and its port."""
        member = self.members[index]
        member.self_name = self.number(member, t.TASK_SELF.pack())
        names = (f"port{self.born}.{index}", f"task{self.born}.{index}")
        reply = self.number(member, t.REPLY_PORT.pack())
        port = self.number(member, t.CONSTRUCT.pack(member.self_name, c.MPO_INSERT_SEND_RIGHT | c.MPO_QLIMIT, 1, 0))
        for name, right in zip(names, (port, member.self_name), strict=True):
            self.ask(member, REGISTER, name, reply, [layout.port_descriptor(right, COPY_SEND)])
        for other in self.members:
            if other is not member and not other.is_stopped:
                theirs = self.number(other, t.REPLY_PORT.pack())
                for name in names:
                    self.ask(other, LOOK_UP, name, theirs)

    def teardown(self) -> None:
        """Everybody ends; both kernels are as they were."""
        self.stage.count()
        if not self.twins.is_sound:
            return
        for member in self.members:
            if member not in self.twins.members:
                continue
            if member.is_stopped:
                self.twins.kill(member)
            else:
                self.twins.close(member)

    # Picking

    def actor(self, who: int) -> Member | None:
        """A task whose process can act now."""
        for member in (*self.members[who:], *self.members):
            if not member.is_stopped:
                return member
        return None

    def name(self, member: Member, number: int, wanted: int = 0) -> int:
        """Mostly a name with one of the rights wanted."""
        entries = member.task.space.entries
        names: list[int] = sorted(name for name, entry in entries.items() if entry.type & wanted and number > 5)
        names = names or sorted(entries)
        if number < 3 or not names:
            return ODD_NAMES[number % 3]
        return names[number % len(names)]

    def task(self, member: Member, number: int) -> tuple[int, Task]:
        """A name of a task, mostly its own, and the task."""
        found = [
            (name, entry.port.kobject)
            for name, entry in sorted(member.task.space.entries.items())
            if entry.port is not None and entry.port.active and isinstance(entry.port.kobject, Task)
        ]
        if number < 20 or not found:
            return member.self_name, member.task
        return found[number % len(found)]

    def source(self, member: Member, number: int, *, full: bool) -> int:
        """A receive right or set to receive from, mostly one where a message waits, or none does."""
        found: list[int] = []
        for name, entry in sorted(member.task.space.entries.items()):
            ports = [entry.port] if entry.type & RECEIVE else entry.pset.members if entry.pset is not None else ()
            if ports and any(port is not None and port.msgcount for port in ports) == full:
                found.append(name)
        return found[number % len(found)] if found and number > 5 else self.name(member, number, RECEIVE | SET_TYPE)

    def waiting(self) -> list[tuple[Member, Call]]:
        """Calls that wait, and whose they are."""
        return [
            (member, call)
            for member in self.members
            for call in (*member.blocked, *member.tagged)
            if call.waiter is not None
        ]

    def disposition(self, task: Task, name: int, number: int, among: Sequence[int] = DISPOSITIONS) -> int:
        """Mostly one that fits the name."""
        entry = task.space.lookup(name)
        if entry is not None and number < 28:
            fitting = [disposition for disposition in among if has_right_for(entry, disposition)]
            if fitting:
                return fitting[number % len(fitting)]
        return DISPOSITIONS[number % 6]

    # Doing

    def number(self, member: Member, payload: bytes) -> int:
        """The first result of a trap; 0 if it was refused."""
        answer = self.twins.trap(member, payload)
        return 0 if t.number_of(answer) else int(t.number_of(answer[4:]))

    def do(self, member: Member, trap: t.Trap, *arguments: int, words: Sequence[int] = (), files: int = 0) -> bytes:
        return self.twins.trap(member, trap.pack(*arguments, words=words), files)

    def ask(self, member: Member, id: int, name: str, reply: int, rights: Sequence[layout.Descriptor] = ()) -> None:
        """A request to the service of names."""
        bootstrap = self.number(member, t.GET_SPECIAL_PORT.pack(member.self_name, c.TASK_BOOTSTRAP_PORT))
        buffer = layout.pack(
            layout.bits(COPY_SEND, MAKE_SEND_ONCE), bootstrap, reply, id, descriptors=rights, inline=pack_name(name)
        )
        option = c.MACH_SEND_MSG | c.MACH_RCV_MSG | c.MACH_SEND_TIMEOUT | c.MACH_RCV_TIMEOUT
        self.twins.message(member, t.MsgTrap(option, buffer, (), 1 << 12, reply).pack())

    # Names and references

    @rule(who=WHO, task=NAME, right=st.sampled_from([0, 3, 3, 4, 6]))
    def allocate(self, who: int, task: int, right: int) -> None:
        if member := self.actor(who):
            self.do(member, t.ALLOCATE, self.task(member, task)[0], right)

    @rule(who=WHO, task=NAME, qlimit=st.integers(0, 2), flags=st.sampled_from([1, 1 | 2, 1 | 4, 1 | 0x10]))
    def construct(self, who: int, task: int, qlimit: int, flags: int) -> None:
        """Queues that are soon full."""
        if member := self.actor(who):
            self.do(member, t.CONSTRUCT, self.task(member, task)[0], flags, qlimit, 5)

    @rule(who=WHO, task=NAME, right=st.sampled_from([1, 3, 4]), name=st.integers(0x103, 0x10B))
    def allocate_name(self, who: int, task: int, right: int, name: int) -> None:
        if member := self.actor(who):
            self.do(member, t.ALLOCATE_NAME, self.task(member, task)[0], right, name)

    @rule(who=WHO, old=NAME, new=st.integers(0x107, 0x117))
    def rename(self, who: int, old: int, new: int) -> None:
        if member := self.actor(who):
            self.do(member, t.RENAME, member.self_name, self.name(member, old), new)

    @rule(who=WHO, name=NAME)
    def deallocate(self, who: int, name: int) -> None:
        if member := self.actor(who):
            self.do(member, t.DEALLOCATE, member.self_name, self.name(member, name, SENDS))

    @rule(who=WHO, name=NAME)
    def destroy(self, who: int, name: int) -> None:
        if member := self.actor(who):
            self.do(member, t.DESTROY, member.self_name, self.name(member, name))

    @rule(who=WHO, name=NAME, right=st.integers(0, 5), delta=DELTA)
    def mod_refs(self, who: int, name: int, right: int, delta: int) -> None:
        if member := self.actor(who):
            chosen = self.name(member, name, 1 << 16 + right)
            self.do(member, t.MOD_REFS, member.self_name, chosen, right, delta)

    @rule(who=WHO, name=NAME, delta=st.sampled_from([0, -1]), guard=st.sampled_from([0, 5]))
    def destruct(self, who: int, name: int, delta: int, guard: int) -> None:
        if member := self.actor(who):
            self.do(member, t.DESTRUCT, member.self_name, self.name(member, name, RECEIVE), delta, guard)

    @rule(who=WHO, names=st.lists(NAME, min_size=1, max_size=3))
    def forget(self, who: int, names: list[int]) -> None:
        if member := self.actor(who):
            found = []
            for number in names:
                name = self.name(member, number)
                entry = member.task.space.lookup(name)
                kind = c.MACH_PORT_RIGHT_RECEIVE if entry is not None and entry.type & RECEIVE else 0
                kind = c.MACH_PORT_RIGHT_PORT_SET if entry is not None and entry.type & SET_TYPE else kind
                found.append((name, kind))
            self.twins.forget(member, found)

    # Rights between tasks

    @rule(who=WHO, task=NAME, name=st.integers(0x103, 0x113), right=NAME, how=HOW)
    def insert_right(self, who: int, task: int, name: int, right: int, how: int) -> None:
        if member := self.actor(who):
            chosen = self.name(member, right)
            disposition = self.disposition(member.task, chosen, how)
            self.do(member, t.INSERT_RIGHT, self.task(member, task)[0], name, chosen, disposition)

    @rule(who=WHO, name=NAME)
    def make_send_under_the_same_name(self, who: int, name: int) -> None:
        if member := self.actor(who):
            chosen = self.name(member, name, RECEIVE)
            self.do(member, t.INSERT_RIGHT, member.self_name, chosen, chosen, MAKE_SEND)

    @rule(who=WHO, task=NAME, name=NAME, how=HOW)
    def extract_right(self, who: int, task: int, name: int, how: int) -> None:
        if member := self.actor(who):
            port, owner = self.task(member, task)
            entries = sorted(owner.space.entries) or [0]
            chosen = entries[name % len(entries)]
            self.do(member, t.EXTRACT_RIGHT, port, chosen, self.disposition(owner, chosen, how))

    @rule(who=WHO, task=NAME, name=NAME, variant=VARIANTS, sync=COUNT, notify=NAME, how=HOW)
    def request_notification(
        self, who: int, task: int, name: int, variant: int, sync: int, notify: int, how: int
    ) -> None:
        if member := self.actor(who):
            wanted = SENDS | RECEIVE if variant in (66, 72) else RECEIVE
            port = self.task(member, task)[0] if task > 35 else member.self_name
            chosen, told = self.name(member, name, wanted), self.name(member, notify, RECEIVE | SEND_ONCE)
            disposition = self.disposition(member.task, told, how)
            if disposition not in (MAKE_SEND_ONCE, MOVE_SEND_ONCE) and how < 25:
                disposition = MAKE_SEND_ONCE
            if variant == 69 and how < 28:
                sync = 0
            self.do(member, t.REQUEST_NOTIFICATION, port, chosen, variant, sync, told, disposition)

    @rule(who=WHO, name=NAME, how=HOW)
    def deposit(self, who: int, name: int, how: int) -> None:
        if member := self.actor(who):
            chosen = self.name(member, name)
            answer = self.do(member, t.DEPOSIT, chosen, self.disposition(member.task, chosen, how))
            if not t.number_of(answer):
                self.deposits.append(answer[4:])

    @precondition(lambda self: self.deposits)
    @rule(who=WHO, number=st.integers(0, 5))
    def claim(self, who: int, number: int) -> None:
        if member := self.actor(who):
            self.twins.claim(member, self.deposits[number % len(self.deposits)])

    # Receive rights, sets, tasks

    @rule(who=WHO, name=NAME, value=st.integers(0, 4), which=st.integers(0, 5))
    def set_something(self, who: int, name: int, value: int, which: int) -> None:
        if member := self.actor(who):
            chosen, me = self.name(member, name, RECEIVE), member.self_name
            if which < 2:
                self.do(member, t.SET_ATTRIBUTES, me, chosen, c.MACH_PORT_LIMITS_INFO, words=[value])
            elif which == 2:
                self.do(member, t.SET_MSCOUNT, me, chosen, value)
            elif which == 3:
                self.do(member, t.SET_SEQNO, me, chosen, value - 1 & 0xFFFFFFFF)
            elif which == 4:
                self.do(member, t.SET_CONTEXT, me, chosen, value)
            else:
                label = "ä\n" if value == 4 else "label" * value
                self.do(member, t.PORT_LABEL, chosen, words=t.pack_texts(label))

    @rule(who=WHO, member_name=NAME, pset=NAME, which=st.integers(0, 3))
    def change_set(self, who: int, member_name: int, pset: int, which: int) -> None:
        if member := self.actor(who):
            chosen, to = self.name(member, member_name, RECEIVE), self.name(member, pset, SET_TYPE)
            trap = (t.MOVE_MEMBER, t.INSERT_MEMBER, t.INSERT_MEMBER, t.EXTRACT_MEMBER)[which]
            self.do(member, trap, member.self_name, chosen, to)

    @rule(who=WHO, name=NAME, guard=st.sampled_from([5, 5, 6]), strict=st.booleans(), undo=st.booleans())
    def guard(self, who: int, name: int, guard: int, strict: bool, undo: bool) -> None:
        if member := self.actor(who):
            chosen = self.name(member, name, RECEIVE)
            if undo:
                self.do(member, t.UNGUARD, member.self_name, chosen, guard)
            else:
                self.do(member, t.GUARD, member.self_name, chosen, guard, int(strict))

    @rule(who=WHO, task=NAME, name=NAME, which=st.integers(0, 8))
    def ask_about(self, who: int, task: int, name: int, which: int) -> None:
        if member := self.actor(who):
            port = self.task(member, task)[0]
            chosen = self.name(member, name, (RECEIVE, 0, RECEIVE, SET_TYPE)[which % 4])
            calls: list[Callable[[], bytes]] = [
                lambda: self.do(member, t.GET_ATTRIBUTES, port, chosen, c.MACH_PORT_RECEIVE_STATUS, 32),
                lambda: self.do(member, t.NAMES, port),
                lambda: self.do(member, t.PEEK, port, chosen, name % 3),
                lambda: self.do(member, t.GET_SET_STATUS, port, chosen),
                lambda: self.do(member, t.GET_SRIGHTS, port, chosen),
                lambda: self.do(member, t.TYPE, port, chosen),
                lambda: self.do(member, t.GET_CONTEXT, port, chosen),
                lambda: self.do(member, t.DESCRIBE, chosen),
                lambda: self.do(member, t.GET_REFS, port, chosen, name % 6),
            ]
            calls[which]()

    @rule(who=WHO, task=NAME, name=NAME, names=st.lists(NAME, max_size=4), which=st.integers(0, 5))
    def odd_calls(self, who: int, task: int, name: int, names: list[int], which: int) -> None:
        """Those that deserve no rule of their own."""
        if member := self.actor(who):
            port, send = self.task(member, task)[0], self.name(member, name, SENDS)
            several = [self.name(member, number, SENDS) for number in names]
            calls: list[Callable[[], bytes]] = [
                lambda: self.do(member, t.PORTS_REGISTER, port, words=several),
                lambda: self.do(member, t.PORTS_LOOKUP, port),
                lambda: self.do(member, t.SET_SPECIAL_PORT, port, c.TASK_BOOTSTRAP_PORT, send),
                lambda: self.do(member, t.GET_SPECIAL_PORT, port, c.TASK_BOOTSTRAP_PORT),
                lambda: self.do(member, t.FILEPORT_MAKEPORT, files=1 + len(names) // 4),
                lambda: self.do(member, t.FILEPORT_MAKEFD, send),
            ]
            calls[which]()

    @rule(who=WHO, name=NAME, which=st.sampled_from([CHECK_IN, LOOK_UP, REGISTER]), number=st.integers(0, 2))
    def name_service(self, who: int, name: int, which: int, number: int) -> None:
        member = self.actor(who)
        if member is not None and member.task.active:
            right = self.name(member, name, SEND)
            rights = [layout.port_descriptor(right, COPY_SEND)] if which == REGISTER else []
            self.ask(member, which, f"service{number}", self.name(member, 11, RECEIVE), rights)

    # Tasks

    @rule(who=WHO, task=NAME)
    def task_create(self, who: int, task: int) -> None:
        if member := self.actor(who):
            child = self.number(member, t.TASK_CREATE.pack(self.task(member, task)[0]))
            if child:
                answer = self.do(member, t.TICKET, child)
                if not t.number_of(answer):
                    self.children.append((member, child, answer[4:]))

    @rule(who=WHO, task=NAME, sure=st.integers(0, 7))
    def task_terminate(self, who: int, task: int, sure: int) -> None:
        if not sure and (member := self.actor(who)):
            self.do(member, t.TASK_TERMINATE, self.task(member, task)[0])

    @rule(who=WHO, how=st.sampled_from(["close", "kill"]), heir=st.integers(0, 3), sure=st.integers(0, 3))
    def end(self, who: int, how: str, heir: int, sure: int) -> None:
        """Another task takes the place of the one that ends: a new one, or a child that somebody made."""
        member = self.members[who]
        if not sure or not member.task.active or member.unread:
            self.replace(who, how, heir)

    def replace(self, who: int, how: str, heir: int) -> None:
        """End a task, and begin another."""
        member = self.members[who]
        if how == "kill" or member.is_stopped:
            self.twins.kill(member)
        else:
            self.twins.close(member)
        self.born += 1
        ready = [
            (maker, child, ticket)
            for maker, child, ticket in self.children
            if maker in self.twins.members and self.is_child(maker, child)
        ]
        self.children = ready
        if heir and ready:
            maker, child, ticket = self.children.pop(heir % len(ready))
            self.members[who] = self.twins.join_by_ticket(f"task{self.born}", maker, child, ticket)
        else:
            self.members[who] = self.twins.join(f"task{self.born}")
        new = self.members[who]
        new.self_name = self.number(new, t.TASK_SELF.pack())
        if c.TASK_BOOTSTRAP_PORT in new.task.special:
            self.enter(who)

    def is_child(self, maker: Member, name: int) -> bool:
        """Whether a name is still that of a child that waits for its process."""
        entry = maker.task.space.lookup(name)
        if entry is None or entry.port is None or not isinstance(entry.port.kobject, Task):
            return False
        return entry.port.kobject in self.twins.machine._children._children

    @precondition(lambda self: self.waiting() and not any(member.is_stopped for member in self.members))
    @rule(who=WHO)
    def stop(self, who: int) -> None:
        """A process with calls that wait reads no more, until it goes on or is killed."""
        waiting = self.waiting()
        self.twins.stop(waiting[who % len(waiting)][0])

    @precondition(lambda self: any(member.is_stopped for member in self.members))
    @rule()
    def go_on(self) -> None:
        for member in self.members:
            if member.is_stopped:
                self.twins.go_on(member)

    # Messages

    def say(self, member: Member, trap: t.MsgTrap, way: str) -> None:
        """Make a call that may have to wait, in one of the ways."""
        if trap.option & c.MACH_SEND_MSG and member.waits_to_send:
            # In which order the calls of a killed process end is nobody's promise.
            trap.option |= c.MACH_SEND_TIMEOUT
        if way == "soon":
            trap.option |= c.MACH_SEND_TIMEOUT | c.MACH_RCV_TIMEOUT
            trap.timeout_ms = 1
            self.twins.message_with_timeout(member, trap.pack())
            return
        if len(member.blocked) + len(member.tagged) >= _BLOCKED_MAX:
            trap.option |= c.MACH_SEND_TIMEOUT | c.MACH_RCV_TIMEOUT
        self.twins.message(member, trap.pack(), tagged=way == "tag")

    def buffer(
        self, member: Member, remote: int, how: int, reply: int, reply_how: int, body: list[tuple[int, int]]
    ) -> bytes:
        task = member.task
        to, back = self.name(member, remote, ALIVE), self.name(member, reply, RECEIVE)
        back_disposition = self.disposition(task, back, reply_how, SENDING) if back else 0
        carried = [(self.name(member, name, RECEIVE if number % 2 else 0), number) for name, number in body]
        return layout.pack(
            layout.bits(self.disposition(task, to, how, SENDING), back_disposition),
            to,
            back,
            1,
            descriptors=[layout.port_descriptor(name, self.disposition(task, name, how)) for name, how in carried],
            inline=b"data" * (how % 3),
        )

    @rule(who=WHO, remote=NAME, how=HOW, reply=NAME, reply_how=HOW, body=RIGHTS_IN_BODY, option=SEND_OPTIONS, way=WAYS)
    def send(
        self,
        who: int,
        remote: int,
        how: int,
        reply: int,
        reply_how: int,
        body: list[tuple[int, int]],
        option: int,
        way: str,
    ) -> None:
        if member := self.actor(who):
            buffer = self.buffer(member, remote, how, reply, reply_how, body)
            self.say(member, t.MsgTrap(c.MACH_SEND_MSG | option, buffer), way)

    @rule(who=WHO, remote=NAME, names=st.lists(NAME, max_size=3), how=HOW, size=st.sampled_from([0, 3, 9000]), way=WAYS)
    def send_memory(self, who: int, remote: int, names: list[int], how: int, size: int, way: str) -> None:
        """Out-of-line memory, some of it longer than a ring, and an array of rights."""
        if member := self.actor(who):
            to = self.name(member, remote, ALIVE)
            chosen = [self.name(member, name) for name in names]
            disposition = self.disposition(member.task, chosen[0], how) if chosen else MAKE_SEND
            buffer = layout.pack(
                layout.bits(self.disposition(member.task, to, how, SENDING)),
                to,
                descriptors=[layout.memory_descriptor(size), layout.port_array_descriptor(len(chosen), disposition)],
            )
            array = b"".join(name.to_bytes(4, "little") for name in chosen)
            self.say(member, t.MsgTrap(c.MACH_SEND_MSG | c.MACH_SEND_TIMEOUT, buffer, (bytes(size), array)), way)

    @rule(who=WHO, name=NAME, limit=LIMITS, large=st.booleans(), wait=st.integers(0, 2), trailer=TRAILERS, way=WAYS)
    def receive(self, who: int, name: int, limit: int, large: bool, wait: int, trailer: int, way: str) -> None:
        if member := self.actor(who):
            option = c.MACH_RCV_MSG | trailer | c.MACH_RCV_LARGE * large | (c.MACH_RCV_TIMEOUT if wait else 0)
            source = self.source(member, name, full=bool(wait))
            self.say(member, t.MsgTrap(option, b"", (), limit, source), way)

    @rule(who=WHO, remote=NAME, how=HOW, reply=NAME, body=RIGHTS_IN_BODY, wait=st.booleans(), way=WAYS)
    def call(
        self, who: int, remote: int, how: int, reply: int, body: list[tuple[int, int]], wait: bool, way: str
    ) -> None:
        """Send and receive at the reply port."""
        if member := self.actor(who):
            source = self.name(member, reply, RECEIVE)
            buffer = self.buffer(member, remote, how, reply, 20, body)
            option = c.MACH_SEND_MSG | c.MACH_RCV_MSG | (0 if wait else c.MACH_SEND_TIMEOUT | c.MACH_RCV_TIMEOUT)
            self.say(member, t.MsgTrap(option, buffer, (), 1 << 16, source), way)

    @precondition(lambda self: self.waiting())
    @rule(index=st.integers(0, 9), how=HOW, body=RIGHTS_IN_BODY, way=WAYS)
    def serve_who_waits(self, index: int, how: int, body: list[tuple[int, int]], way: str) -> None:
        """A message for a call that waits for one, or room for one that waits for that."""
        waiting = self.waiting()
        if index < 5:
            waiting = [pair for pair in waiting if pair[0].is_stopped] or waiting
        self.serve(waiting[index % len(waiting)][1], how, body, way)

    @precondition(lambda self: self.waiting() and not any(member.is_stopped for member in self.members))
    @rule(index=st.integers(0, 9), how=HOW, body=RIGHTS_IN_BODY, count=st.integers(1, 2), dies=st.booleans())
    def answer_who_is_stopped(self, index: int, how: int, body: list[tuple[int, int]], count: int, dies: bool) -> None:
        """A process is stopped, answered, and killed or let go on: what it had not read goes back to its queue."""
        waiting = self.waiting()
        member, call = waiting[index % len(waiting)]
        self.twins.stop(member)
        self.serve(call, how, body, "thread")
        if count == 2:
            for other in (*member.blocked, *member.tagged):
                if other.waiter is not None:
                    self.serve(other, how, body, "thread")
                    break
        if dies:
            self.replace(self.members.index(member), "kill", how)
        else:
            self.twins.go_on(member)

    def serve(self, call: Call, how: int, body: list[tuple[int, int]], way: str) -> None:
        """Send to the port that a call waits at, or receive from it, whoever can."""
        waiter = call.waiter
        assert waiter is not None
        sends = waiter.phase == phase.SEND
        source = waiter.message.remote if sends and waiter.message is not None else waiter.source
        ports = source.members if isinstance(source, PortSet) else {source: None}
        for member in self.members:
            for name, entry in sorted(member.task.space.entries.items()):
                if member.is_stopped or entry.port not in ports or (sends and not entry.type & RECEIVE):
                    continue
                if sends:
                    option = c.MACH_RCV_MSG | c.MACH_RCV_TIMEOUT
                    self.say(member, t.MsgTrap(option, b"", (), 1 << 16, name), way)
                    return
                carried = [(self.name(member, number), number_how) for number, number_how in body]
                rights = [
                    layout.port_descriptor(right, self.disposition(member.task, right, number))
                    for right, number in carried
                ]
                to = self.disposition(member.task, name, how, SENDING)
                buffer = layout.pack(layout.bits(to), name, id=7, descriptors=rights, inline=b"data" * (how % 3))
                self.say(member, t.MsgTrap(c.MACH_SEND_MSG | c.MACH_SEND_TIMEOUT, buffer), way)
                return

    @rule(who=WHO, name=NAME, count=st.integers(1, 3), way=WAYS)
    def wait_for_messages(self, who: int, name: int, count: int, way: str) -> None:
        """Several receives of which most have to wait."""
        if member := self.actor(who):
            for number in range(count):
                source = self.source(member, name + number, full=False)
                self.say(member, t.MsgTrap(c.MACH_RCV_MSG | c.MACH_RCV_LARGE, b"", (), 1 << 16, source), way)

    @rule(who=WHO, remote=NAME, how=HOW, count=st.integers(1, 4), way=WAYS)
    def fill(self, who: int, remote: int, how: int, count: int, way: str) -> None:
        """More messages than a queue has room for, with a right to answer them."""
        if member := self.actor(who):
            to, reply = self.name(member, remote, ALIVE), self.name(member, how + 6, RECEIVE)
            for number in range(count):
                bits = layout.bits(self.disposition(member.task, to, how, SENDING), MAKE_SEND_ONCE if reply else 0)
                buffer = layout.pack(bits, to, reply, number)
                self.say(member, t.MsgTrap(c.MACH_SEND_MSG, buffer), way)

    @rule(who=WHO, remote=NAME, how=HOW, count=st.integers(0, 4))
    def send_many(self, who: int, remote: int, how: int, count: int) -> None:
        member = self.actor(who)
        if member is not None and not member.waits_to_send and len(member.blocked) < _BLOCKED_MAX:
            buffers = [self.buffer(member, remote, how, 0, 0, []) for _ in range(count)]
            self.twins.message(member, t.pack_send_many(buffers))

    @rule(who=WHO, name=NAME, count=st.integers(0, 4), wait=st.booleans())
    def receive_many(self, who: int, name: int, count: int, wait: bool) -> None:
        if member := self.actor(who):
            wait &= len(member.blocked) < _BLOCKED_MAX
            option = c.MACH_RCV_MSG | (0 if wait else c.MACH_RCV_TIMEOUT)
            source = self.source(member, name, full=not wait)
            self.twins.message(member, t.RECEIVE_MANY.pack(option, 1 << 16, source, 0, count))

    @precondition(lambda self: self.waiting())
    @rule(index=st.integers(0, 9))
    def interrupt(self, index: int) -> None:
        """A call that waits is interrupted, or cancelled."""
        waiting = [pair for pair in self.waiting() if not pair[0].is_stopped]
        if waiting:
            self.twins.interrupt(*waiting[index % len(waiting)])

    @rule(who=WHO, remote=NAME, name=NAME, how=HOW, sends=st.booleans())
    def give_up(self, who: int, remote: int, name: int, how: int, sends: bool) -> None:
        """A thread goes on without its answer: a message that it was sending is destroyed."""
        member = self.actor(who)
        if member is not None and not (sends and member.waits_to_send):
            source = self.source(member, name, full=False)
            buffer = self.buffer(member, remote, how, name, 20, [(name, how)])
            trap = t.MsgTrap(c.MACH_SEND_MSG, buffer) if sends else t.MsgTrap(c.MACH_RCV_MSG, b"", (), 100, source)
            self.twins.give_up(member, trap.pack())


#: Rules that are tried more often than others: without messages that wait, the rest has little to change.
_OFTEN: Final = {"wait_for_messages": 4, "serve_who_waits": 4, "fill": 2, "send": 3, "receive": 2, "call": 2, "stop": 2}
for _name, _times in _OFTEN.items():
    for _number in range(1, _times):
        setattr(Lockstep, f"{_name}_{_number}", getattr(Lockstep, _name))
