"""A kernel as plain data and back: the same kernel, which goes on as the first one would have; or one typed error."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule
from kernel_driver import (
    DEATH,
    MAKE_SEND,
    MOVE_RECEIVE,
    NO_SENDERS,
    PORT_DESTROYED,
    Actor,
    World,
    three_tasks,
)
from kernel_twins import Comparison, FullHouse
from test_kernel_model import KernelMachine

import machport.kernel
from machport.abi import constants as c
from machport.kernel import messages, ports, tasks
from machport.kernel.copyout import take_back
from machport.kernel.dialect import GNUMACH, MANUAL, Dialect
from machport.kernel.invariants import check
from machport.kernel.kernel import Kernel
from machport.kernel.port import Port
from machport.kernel.refusal import Refusal
from machport.kernel.rows import FIELDS
from machport.kernel.snapshot import Restored, Saved, SnapshotError, restore, save
from machport.kernel.space import FreshNames, NamePicker
from machport.kernel.waiter import Result, Waiter, new_waiter

State = Any


class Object:
    """What a port of the kernel stands for, with a number of its own."""

    def __init__(self, number: int) -> None:
        self.number = number


def over_the_wire(state: State) -> State:
    """What arrives of a state that somebody encodes and decodes."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(state))


def shown(result: Result | None) -> Any:
    """What the caller sees of a result."""
    if result is None:
        return None
    return result.code, result.rule, result.taken, result.buffer, list(result.memory)


class TwinMachine(KernelMachine):
    """Every call is made twice: on a kernel, and on one that was made of its snapshot at some point before."""

    def __init__(self) -> None:
        super().__init__()
        self.twin: dict[str, Any] | None = None
        self.twin_saved: Port | None = None
        self.unread: list[tuple[int, Waiter]] = []
        self.objects: list[Any] = []

    def swap(self) -> None:
        """Look at the other kernel from now on."""
        assert self.twin is not None
        for name, value in self.twin.items():
            self.twin[name] = getattr(self, name)
            setattr(self, name, value)

    @rule()
    def carry_over(self) -> None:
        kernel = self.world.kernel
        kernel.take_released()
        before = self.world.snapshot()
        results = [waiter.result for _, waiter in self.unread]
        saved = save(kernel, self.waiters, results, lambda kobject: 5, [actor.task for actor in self.actors])  # type: ignore[arg-type]
        leaked = {saved.ports[port]: count for port, count in self.leaked.items() if port in saved.ports}
        restored = restore(over_the_wire(saved.state), Object, leaked=leaked)
        assert self.world.snapshot() == before
        again = save(restored.kernel, restored.waiters, restored.results, lambda kobject: 5, restored.tasks)
        assert again.state == saved.state
        world = World.__new__(World)
        world.kernel = restored.kernel
        world.actors = []
        for task in restored.tasks[: len(self.actors)]:
            actor = Actor.__new__(Actor)
            actor.world, actor.task = world, task
            world.actors.append(actor)
        assert world.snapshot() == before
        Comparison().same([kernel, self.waiters, results], [restored.kernel, restored.waiters, restored.results])
        unread = []
        for (who, waiter), result in zip(self.unread, restored.results, strict=True):
            twin = new_waiter(world.actors[who].task, waiter.option, 0, 0, 0)
            twin.result = result
            unread.append((who, twin))
        self.twin = {
            "world": world,
            "actors": world.actors,
            "known": {port for port in restored.ports if port.active},
            "leaked": Counter({restored.ports[number]: count for number, count in leaked.items()}),
            "waiters": restored.waiters[: len(self.waiters)],
            "unread": unread,
        }

    def do(self, call: Callable[[], Any], *, consumes: bool = False) -> None:
        waiters = list(self.waiters)
        first: list[Any] = []

        def once() -> Any:
            try:
                made = call()
            except Refusal as refusal:
                first.append(("refused", refusal.code, refusal.rule))
                raise
            first.append(made)
            if isinstance(made, Waiter):
                waiters.append(made)
            return made

        super().do(once, consumes=consumes)
        self.note_unread(waiters)
        if self.twin is None:
            return
        self.swap()
        others = waiters
        waiters = list(self.waiters)
        super().do(once, consumes=consumes)
        self.note_unread(waiters)
        picture = self.world.snapshot()
        self.swap()
        assert picture == self.world.snapshot()
        one, other = first
        assert isinstance(one, Waiter) or one == other
        assert [shown(waiter.result) for waiter in waiters] == [shown(waiter.result) for waiter in others]

    def note_unread(self, waiters: list[Waiter]) -> None:
        for waiter in waiters:
            if waiter.result is not None and waiter.result.received is not None:
                for who, actor in enumerate(self.actors):
                    if actor.task is waiter.task:
                        self.unread.append((who, waiter))

    @rule(who=st.integers(0, 2))
    def read(self, who: int) -> None:
        """A task has read what it received."""
        self.forget_unread(who)

    def forget_unread(self, who: int) -> None:
        self.unread = [unread for unread in self.unread if unread[0] != who]
        if self.twin is not None:
            self.twin["unread"] = [unread for unread in self.twin["unread"] if unread[0] != who]

    @rule(who=st.integers(0, 2), sure=st.integers(0, 2))
    def die(self, who: int, sure: int) -> None:
        """A task ends before it has read what it received: that goes back to its queue first."""
        if sure:
            return

        def end() -> None:
            for owner, waiter in self.unread:
                if owner == who:
                    self.world.call(take_back, self.actors[who].task, waiter.result)
            self.actors[who].terminate()

        self.do(end)
        self.born += 1
        self.replace(who)

    def replace(self, who: int) -> None:
        self.forget_unread(who)
        super().replace(who)
        if self.twin is not None:
            self.swap()
            super().replace(who)
            self.swap()

    def saved(self, who: int, name: int) -> Port | None:
        if self.twin is not None:
            self.swap()
            self.twin_saved = super().saved(who, name)
            self.swap()
        return super().saved(who, name)

    def note_leak(self, who: int, name: int, port: Port | None) -> None:
        super().note_leak(who, name, port)
        if self.twin is not None:
            self.swap()
            super().note_leak(who, name, self.twin_saved)
            self.swap()

    @invariant()
    @precondition(lambda self: self.twin is not None)
    def the_twins_rights_add_up(self) -> None:
        self.swap()
        self.rights_add_up()
        self.swap()


class ManualTwins(TwinMachine):
    dialect: ClassVar[Dialect] = MANUAL


class GnuMachTwins(TwinMachine):
    dialect: ClassVar[Dialect] = GNUMACH


_PROFILE = settings(
    max_examples=40,
    stateful_step_count=50,
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)

TestManualTwins = ManualTwins.TestCase
TestManualTwins.settings = _PROFILE
TestGnuMachTwins = GnuMachTwins.TestCase
TestGnuMachTwins.settings = _PROFILE


# A kernel with a bit of everything


@pytest.fixture(params=[MANUAL, GNUMACH], ids=["manual", "gnumach"])
def house(request: pytest.FixtureRequest) -> FullHouse:
    return FullHouse(request.param)


def saved_house(house: FullHouse) -> Saved:
    return save(house.world.kernel, house.waiters, house.unread, lambda kobject: 5)


def moved(house: FullHouse) -> FullHouse:
    """The same house in another kernel, which was made of the first one's snapshot."""
    restored = restore(over_the_wire(saved_house(house).state), Object)
    twin = FullHouse.__new__(FullHouse)
    twin.world = World.__new__(World)
    twin.world.kernel = restored.kernel
    actors = []
    for task in restored.tasks:
        actor = Actor.__new__(Actor)
        actor.world, actor.task = twin.world, task
        actors.append(actor)
    twin.world.actors = actors
    twin.actors = (actors[0], actors[1], actors[1])
    twin.waiters, twin.unread, twin.names = restored.waiters, restored.results, house.names
    return twin


def same(house: FullHouse, twin: FullHouse) -> None:
    pairs = ((it.world.kernel, it.waiters, it.unread) for it in (house, twin))
    Comparison().same(*pairs)


def test_a_kernel_that_was_carried_over_is_the_same_in_every_field(house: FullHouse) -> None:
    before = house.world.snapshot()
    twin = moved(house)
    same(house, twin)
    assert house.world.snapshot() == before == twin.world.snapshot()
    same(house, moved(twin))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("qlimit", 6),
        ("context", 1),
        ("label", "label"),
        ("last_holder", 1),
        ("lost_with", 1),
        ("mscount", 1),
        ("seqno", 1),
        ("guarded", True),
        ("strict", True),
        ("unreceived", True),
    ],
)
def test_each_field_of_a_port_that_is_otherwise_new_is_carried_over(field: str, value: Any) -> None:
    a, *_ = three_tasks()
    port = a.port_behind(a.port())
    setattr(port, field, value)
    saved = save(a.kernel)
    assert getattr(restore(saved.state).ports[saved.ports[port]], field) == value


@pytest.mark.parametrize("what", ["ns_request", "pd_request", "requests", "senders", "receivers"])
def test_each_link_of_a_port_that_is_otherwise_new_is_carried_over(what: str) -> None:
    a, *_ = three_tasks()
    name, other = a.port(), a.port()
    if what == "ns_request":
        a.request(NO_SENDERS, name, other, sync=1)
    elif what == "pd_request":
        a.request(PORT_DESTROYED, name, other)
    elif what == "requests":
        a.request(DEATH, name, other)
    elif what == "receivers":
        a.wait_to_receive(name)
    else:
        a.fill(name)
        a.wait_to_send(name, MAKE_SEND)
    port = a.port_behind(name)
    saved = save(a.kernel)
    assert getattr(restore(saved.state).ports[saved.ports[port]], what) is not None


def test_the_kernel_that_was_saved_stays_as_it_was(house: FullHouse) -> None:
    state = saved_house(house).state
    assert saved_house(house).state == state


def test_what_the_driver_knows_has_the_numbers_that_it_gave(house: FullHouse) -> None:
    kernel = house.world.kernel
    dead = house.actors[2].task
    assert not dead.active
    known = [house.actors[1].task, dead]
    saved = save(kernel, house.waiters, house.unread, lambda kobject: 5, known)
    restored = restore(saved.state, Object)
    assert saved.tasks == {house.actors[1].task: 0, dead: 1, house.actors[0].task: 2}
    assert [(task.label, task.active) for task in restored.tasks[:2]] == [("b", True), ("c", False)]
    assert list(restored.kernel.tasks) == [restored.tasks[2], restored.tasks[0]]
    assert [saved.waiters[waiter] for waiter in house.waiters] == list(range(len(house.waiters)))
    assert [saved.results[result] for result in house.unread] == list(range(len(house.unread)))
    assert all(restored.ports[number].label == port.label for port, number in saved.ports.items())


def step_take_back(house: FullHouse) -> Any:
    while house.unread:
        house.world.call(take_back, house.actors[0].task, house.unread.pop())


def step_receive(house: FullHouse) -> Any:
    """Everything that waits anywhere, in order."""
    found = []
    for actor in house.actors[:2]:
        for name in sorted(actor.names()):
            while True:
                result = actor.mach_msg(c.MACH_RCV_MSG | c.MACH_RCV_TIMEOUT, rcv_limit=1 << 16, rcv_name=name).result
                found.append(shown(result))
                if result is None or result.head is None:
                    break
    return found


def step_send(house: FullHouse) -> Any:
    """To those that wait, at ports and sets."""
    a = house.actors[0]
    for name in ("waited", "waited", "queue", "context"):
        a.try_send(house.names[name], MAKE_SEND, id=5)
    return a.receive(house.names["set"])


def step_give_up(house: FullHouse) -> Any:
    for index, waiter in enumerate(house.waiters):
        house.world.call(messages.interrupt if index % 2 else messages.expire, waiter)


def step_end(index: int) -> Callable[[FullHouse], Any]:
    return lambda house: house.actors[index].terminate()


def step_destroy(house: FullHouse) -> Any:
    a = house.actors[0]
    for name in sorted(a.names(), reverse=True):
        if name != house.names["guarded"]:
            a.destroy(name)


def step_allocate(house: FullHouse) -> Any:
    return [actor.port() for actor in house.actors[:2] for _ in range(5)]


STEPS: dict[str, Callable[[FullHouse], Any]] = {
    "take back": step_take_back,
    "receive": step_receive,
    "send": step_send,
    "give up": step_give_up,
    "end the first": step_end(0),
    "end the second": step_end(1),
    "destroy": step_destroy,
    "allocate": step_allocate,
}


@pytest.mark.parametrize("first", STEPS)
@pytest.mark.parametrize("then", STEPS)
def test_both_kernels_go_on_alike(house: FullHouse, first: str, then: str) -> None:
    """Whatever is done next, and then: results, waiters and every field."""
    twin = moved(house)
    for step in (first, then):
        outcomes = []
        for one in (house, twin):
            try:
                outcomes.append(STEPS[step](one))
            except (Refusal, AssertionError, KeyError) as error:
                outcomes.append(type(error))
            one.world.kernel.take_released()
        assert outcomes[0] == outcomes[1]
        assert [shown(waiter.result) for waiter in house.waiters] == [shown(waiter.result) for waiter in twin.waiters]
        same(house, twin)


def test_many_in_one_place_are_checked_one_by_one() -> None:
    """A set of many ports with messages, and many calls at one port: what a client makes of them costs the sum."""
    a, *_ = three_tasks()
    pset, port = a.pset(), a.port()
    for _ in range(20_000):
        member = a.port()
        a.send(member, MAKE_SEND)
        a.move_member(member, pset)
        a.wait_to_receive(port)
    restored = restore(over_the_wire(save(a.kernel).state))
    assert len(restored.waiters) == 20_000


def test_a_kernel_with_something_under_way_is_not_saved() -> None:
    a, _, _ = three_tasks()
    port = a.port()
    waiter = a.wait_to_receive(port)
    messages.expire(a.kernel, waiter)
    with pytest.raises(SnapshotError, match="under way"):
        save(a.kernel)
    messages.collect(a.kernel)
    save(a.kernel)
    with pytest.raises(SnapshotError, match="does not wait"):
        save(a.kernel, [waiter])
    a.terminate()
    with pytest.raises(SnapshotError, match="take what it released"):
        save(a.kernel)


def test_a_port_that_stands_for_something_needs_somebody_who_knows_what() -> None:
    a, *_ = three_tasks()
    a.world.call(tasks.make_object, a.task, object())
    with pytest.raises(SnapshotError, match="nobody gives that a number"):
        save(a.kernel)
    saved = save(a.kernel, number_of_object=lambda kobject: 41)
    port = a.task.space.living_entries()[0].port
    assert port is not None
    made = restore(saved.state, Object).ports[saved.ports[port]].kobject
    assert isinstance(made, Object) and made.number == 41
    nobodies: list[Callable[[int], Any] | None] = [None, lambda number: None, dict[int, Any]().__getitem__]
    for nobody in nobodies:
        with pytest.raises(SnapshotError):
            restore(saved.state, nobody)


def test_names_that_are_never_used_twice_go_on_ascending() -> None:
    kernel = Kernel()
    task = tasks.create_task(kernel, "fresh", names=FreshNames(0x100))
    ports.mach_port_allocate(kernel, task, c.MACH_PORT_RIGHT_RECEIVE)
    restored = restore(save(kernel).state)
    assert ports.mach_port_allocate(restored.kernel, restored.tasks[0], c.MACH_PORT_RIGHT_RECEIVE) == 0x102


def test_names_of_another_sort_are_not_saved() -> None:
    class Own(NamePicker):
        def pick(self, used: object) -> int:
            return 5

    kernel = Kernel()
    tasks.create_task(kernel, "own", names=Own())
    with pytest.raises(SnapshotError, match="Own"):
        save(kernel)


def test_a_dialect_is_carried_over_switch_by_switch() -> None:
    for dialect in (MANUAL, GNUMACH, Dialect(request_slots=True, qlimit_max=77)):
        assert restore(save(Kernel(dialect, name_limit=9)).state).kernel.dialect == dialect


def test_chains_of_any_length_cost_no_depth() -> None:
    """A right in a message at a port whose right is in a message, and so on."""
    a, _, _ = three_tasks()
    port = a.port_with_send()
    for _ in range(20_000):
        following = a.port_with_send()
        a.send(following, rights=[(port, MOVE_RECEIVE)])
        a.deallocate(port)
        port = following
    restored = restore(over_the_wire(save(a.kernel).state), checks=False)
    assert sum(port.active for port in restored.ports) == 20_004


# What is carried over


def classes_of_the_kernel() -> Iterator[tuple[str, set[str]]]:
    """Each class that is state, and the names of its fields, as the sources have them."""
    for path in Path(machport.kernel.__file__).parent.glob("*.py"):
        if path.stem in {"rows", "saving", "restoring", "snapshot", "invariants", "refusal", "dialect"}:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and node.name not in {"NamePicker", "Described", "Peeked"}:
                yield node.name, fields_of(node)


def fields_of(node: ast.ClassDef) -> set[str]:
    found = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store) and ast.unparse(part.value) == "self":
            found.add(part.attr)
    return found


@pytest.mark.parametrize(("name", "fields"), list(classes_of_the_kernel()))
def test_every_field_of_the_kernel_is_carried_over_or_follows_from_others(name: str, fields: set[str]) -> None:
    """A field that the snapshot does not know of would be lost."""
    known = [field for part in FIELDS[name] for field in part.split()]
    assert len(known) == len(set(known))
    assert set(known) == fields


def test_the_snapshot_knows_no_classes_that_are_not_there() -> None:
    assert set(FIELDS) == {name for name, _ in classes_of_the_kernel()}


# What is no state of a kernel


def positions(state: State) -> list[tuple[list[Any], int]]:
    """Every place of a state where something stands."""
    found: list[tuple[list[Any], int]] = []
    todo, seen = [state], {id(state)}
    while todo:
        row = todo.pop()
        for index, value in enumerate(row):
            found.append((row, index))
            # What was spoiled before may be in itself now.
            if isinstance(value, list) and id(value) not in seen:
                seen.add(id(value))
                todo.append(value)
    return found


def odd_value(random: Random, value: Any) -> Any:
    """Something near to what stands there, or of another type, or anything."""
    if isinstance(value, int) and random.random() < 0.5:
        return random.choice([value + 1, value - 1, -value, value ^ 1 << random.randrange(65), not value])
    twice: Any = value
    if isinstance(value, str | bytes | list) and random.random() < 0.5:
        return value[: random.randrange(len(value) + 1)] if random.random() < 0.5 else twice + twice
    return random.choice(
        [None, True, False, -3, -2, -1, 0, 1, 2, 3, 7, 16, 17, 18, 2**32, 2**63, 2**64, -(2**63), 1.0, 0.0, -1.0,
         "", "text", b"", b"\0\1\2\3", [], [0], [[]], {}, {"a": 1}, (), (1, 2), object()]
    )  # fmt: skip


def spoil(random: Random, state: State) -> None:
    """Change one place, or exchange two."""
    places = positions(state)
    row, index = random.choice(places)
    how = random.randrange(6)
    if how == 0:
        del row[index]
    elif how == 1:
        row.insert(index, odd_value(random, row[index]))
    elif how == 2:
        other, at = random.choice(places)
        row[index], other[at] = other[at], row[index]
    elif how == 3:
        # Often something that stands in the same place of another row.
        others = [it for it in places if it[1] == index and type(it[0][index]) is type(row[index])]
        other, at = random.choice(others)
        row[index] = other[at]
    else:
        row[index] = odd_value(random, row[index])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dialect", [MANUAL, GNUMACH], ids=["manual", "gnumach"])
def test_a_spoiled_state_is_refused_or_is_a_kernel(dialect: Dialect, seed: int) -> None:
    """One typed error, whatever was done to it; and what is taken keeps every promise, and goes on working."""
    random = Random(seed)
    state = saved_house(FullHouse(dialect)).state
    refused = 0
    for _ in range(150):
        spoiled = over_the_wire(state)
        for _ in range(random.choice([1, 1, 1, 2, 5])):
            spoil(random, spoiled)
        try:
            restored = restore(spoiled, Object)
        except SnapshotError:
            refused += 1
            continue
        use_up(restored)
    assert 30 < refused < 150


def use_up(restored: Restored) -> None:
    """Take everything back, and end every task: what is left is nothing, and nothing went wrong."""
    kernel = restored.kernel
    for result in restored.results:
        if result.received is not None:
            take_back(kernel, restored.tasks[0], result)
            messages.collect(kernel)
    for task in list(kernel.tasks):
        tasks.task_terminate(kernel, task)
        messages.collect(kernel)
    kernel.take_released()
    check(kernel, {port for port in restored.ports if port.active}, Counter())


@pytest.mark.parametrize("state", [None, 0, "", b"", [], {}, [[]] * 9, [None] * 9, [[]] * 10, over_the_wire([])])
def test_what_is_nothing_of_the_kind_is_refused(state: State) -> None:
    with pytest.raises(SnapshotError, match="not the state of a kernel"):
        restore(state)
