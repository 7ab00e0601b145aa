"""A sleeper arms its bell and looks once more; a publisher publishes and rings: no wake-up is lost, and none is twice.

The protocol is tried in every order that two processors with store buffers can run it in (``bell_model``); that the
source takes the steps of the model is seen through recorded memory, and both forms of it are raced for real.
"""

from __future__ import annotations

import importlib.util
import socket
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from bell_model import Fault, Machine, Program, publisher, sleeper
from ring_forms import MAKERS, ROOM, U32, MakeRing

from machport.ring import Doorbell, layout, memory

ENTRIES = 3
PATIENCE = 30.0


def load_interpreted() -> ModuleType:
    """``doorbell.py`` as plain Python, beside the compiled module of the same source."""
    name = "machport_ring_doorbell_interpreted"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOM / "doorbell.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


interpreted = load_interpreted()
MakeBell = Callable[[bytearray, int], Doorbell]
BELLS: dict[str, MakeBell] = {"compiled": Doorbell, "interpreted": interpreted.Doorbell}
both_bells = pytest.mark.parametrize("make", BELLS.values(), ids=BELLS.keys())
both_pairs = pytest.mark.parametrize(
    ("make", "make_ring"), [(BELLS[form], MAKERS[form]) for form in BELLS], ids=BELLS.keys()
)


# Every order


def explored(down: Program, up: Program, entries: int) -> Machine:
    machine = Machine(down, up, entries)
    machine.explore()
    return machine


@pytest.mark.parametrize("entries", [1, 2, 3, 4])
def test_in_no_order_of_steps_is_an_entry_left_to_a_sleeper(entries: int) -> None:
    """Promise 3, nobody hangs: with an entry to read the sleeper is awake, or a packet is there or will be."""
    machine = explored(publisher(entries), sleeper(entries), entries)
    assert machine.finals()


@pytest.mark.parametrize("entries", [1, 2, 3, 4])
def test_each_sleep_is_ended_once_and_stale_packets_are_no_more_than_entries(entries: int) -> None:
    """Each period of arming has one winner (asserted in every state by ``explore``); the rest is passed over."""
    machine = explored(publisher(entries), sleeper(entries), entries)
    assert all(state.packets <= state.rung <= entries for state in machine.states)
    left = {state.packets for state in machine.finals()}
    assert left == set(range(entries + 1)), "the orders include those in which the sleeper loses every time"
    assert any(state.won for state in machine.finals()), "and those in which it wins"


@pytest.mark.parametrize("entries", [1, 2, 3, 4])
def test_a_publisher_that_comes_when_all_is_read_does_not_take_the_bell_of_the_next_sleep(entries: int) -> None:
    """When both are done the bell is silent: whoever lost the exchange left nothing behind."""
    machine = explored(publisher(entries), sleeper(entries), entries)
    assert {state.memory for state in machine.finals()} == {(entries, 0)}


@pytest.mark.parametrize(
    ("down", "up", "fault"),
    [
        pytest.param(publisher(1, fence=False), sleeper(1), "asleep", id="the publisher has no fence"),
        pytest.param(publisher(1), sleeper(1, fence=False), "asleep", id="the sleeper has no fence"),
        pytest.param(publisher(1), sleeper(1, second_look=False), "asleep", id="there is no second look"),
    ],
)
def test_the_search_finds_the_wake_up_that_a_weaker_protocol_loses(down: Program, up: Program, fault: str) -> None:
    """That the tests above say something."""
    with pytest.raises(Fault, match=fault):
        Machine(down, up, 1).explore()


@pytest.mark.parametrize(
    ("down", "up"),
    [
        pytest.param(publisher(ENTRIES, exchange=False), sleeper(ENTRIES), id="the publisher stores"),
        pytest.param(publisher(ENTRIES), sleeper(ENTRIES, exchange=False), id="the sleeper stores"),
    ],
)
def test_the_search_finds_what_goes_wrong_with_a_bell_without_exchange(down: Program, up: Program) -> None:
    """A wake-up is given twice; or a late store silences the bell of the next sleep, and one is lost."""
    with pytest.raises(Fault):
        Machine(down, up, ENTRIES).explore()


def test_without_disarming_packets_pile_up_for_entries_that_were_read() -> None:
    """Why the sleeper disarms: otherwise a publisher wakes somebody who is awake."""
    usual = explored(publisher(2), sleeper(2), 2)
    careless = explored(publisher(2), sleeper(2, disarm=False), 2)
    assert any(state.memory[1] for state in careless.finals())
    assert not any(state.memory[1] for state in usual.finals())


# The source takes these steps


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the interpreted form does to memory, in order."""
    log: list[str] = []

    def recorded(name: str, access: Callable[..., Any]) -> Callable[..., Any]:
        def record(*args: Any) -> Any:
            log.append(name + (f" {args[2]}" if name == "exchange" else ""))
            return access(*args)

        return record

    for name in ("load_relaxed", "load_acquire", "store_release", "fence", "exchange"):
        monkeypatch.setattr(memory, name, recorded(name, getattr(memory, name)))
    return log


def test_arming_is_an_exchange_and_a_fence(steps: list[str]) -> None:
    interpreted.Doorbell(bytearray(4), 0).arm()
    assert steps == ["exchange 1", "fence"]


@pytest.mark.parametrize("before", [0, 1])
def test_disarming_is_one_exchange(steps: list[str], before: int) -> None:
    bell = interpreted.Doorbell(bytearray(U32.pack(before)), 0)
    assert bell.disarm() == (before == 1)
    assert steps == ["exchange 0"]


def test_ringing_a_bell_that_is_not_armed_writes_nothing(steps: list[str]) -> None:
    """The usual case, which must not take the other side's cache line."""
    assert not interpreted.Doorbell(bytearray(4), 0).ring()
    assert steps == ["fence", "load_relaxed"]


def test_ringing_an_armed_bell_is_a_fence_a_load_and_an_exchange(steps: list[str]) -> None:
    assert interpreted.Doorbell(bytearray(U32.pack(1)), 0).ring()
    assert steps == ["fence", "load_relaxed", "exchange 0"]


def test_publishing_ends_with_the_tail_and_looking_loads_it(steps: list[str]) -> None:
    """The other two steps of the model, in a ring of the layout that traps use."""
    ring = MAKERS["interpreted"](memoryview(bytearray(256)), 100)
    ring.enqueue(b"")
    assert steps[-1] == "store_release"
    steps.clear()
    assert ring.data_available()
    assert steps == ["load_relaxed", "load_acquire"]


# The bell by itself, in both forms


@both_bells
def test_a_bell_rings_once_for_each_time_it_is_armed(make: MakeBell) -> None:
    bell = make(bytearray(4), 0)
    assert not bell.ring()
    for _ in range(3):
        bell.arm()
        assert bell.ring()
        assert not bell.ring()
        assert not bell.disarm(), "the publisher has won"
    bell.arm()
    bell.arm()
    assert bell.disarm()
    assert not bell.ring(), "the sleeper has won"


@both_bells
@pytest.mark.parametrize("value", [4, 255, 256, 2**16, 2**31, 2**32 - 1])
def test_any_other_value_in_the_word_is_no_armed_bell_and_is_gone_after_arming(make: MakeBell, value: int) -> None:
    """Nothing that the word says is believed."""
    word = bytearray(U32.pack(value))
    bell = make(word, 0)
    assert not bell.ring()
    assert not bell.disarm()
    U32.pack_into(word, 0, value)
    bell.arm()
    assert U32.unpack(word)[0] == 1
    assert bell.ring()
    assert word == bytes(4)


@both_bells
def test_only_the_word_at_the_offset_is_touched(make: MakeBell) -> None:
    region = bytearray(b"\xca" * 12)
    bell = make(region, 4)
    bell.arm()
    assert region == b"\xca" * 4 + U32.pack(1) + b"\xca" * 4
    assert bell.disarm()
    assert region == b"\xca" * 4 + bytes(4) + b"\xca" * 4


@both_bells
@pytest.mark.parametrize(("size", "offset"), [(0, 0), (3, 0), (8, 8), (8, 6)])
def test_a_place_without_a_whole_word_is_refused(make: MakeBell, size: int, offset: int) -> None:
    with pytest.raises(ValueError, match=f"offset {offset}"):
        make(bytearray(size), offset)


@both_bells
def test_memory_that_cannot_be_written_is_refused(make: Callable[[Any, int], Doorbell]) -> None:
    with pytest.raises(ValueError, match="no word to write"):
        make(bytes(4), 0)


def test_the_compiled_bell_refuses_a_word_that_is_not_aligned() -> None:
    region = memoryview(bytearray(12))
    with pytest.raises(ValueError, match="offset"):
        Doorbell(region[1:], 0)


def test_the_compiled_bell_keeps_its_memory() -> None:
    """The word stays as long as the bell, whoever forgets the buffer."""
    region = bytearray(4)
    bell = Doorbell(region, 0)
    with pytest.raises(BufferError):
        region.extend(bytes(100))
    del bell
    region.extend(bytes(100))


# Both sides at once


def read_all(ring: Any, bell: Doorbell, sock: socket.socket, entries: int) -> tuple[list[int], int]:
    """The sleeper, as a channel is one: what it read, and how often it slept."""
    read, sleeps = list[int](), 0
    while len(read) < entries:
        entry = ring.dequeue()
        if entry is not None:
            read.append(int.from_bytes(entry, "little"))
            continue
        bell.arm()
        if ring.data_available():
            bell.disarm()
        else:
            assert sock.recv(1) == b"w", "the publisher is gone"
            sleeps += 1
    return read, sleeps


def publish(ring: Any, bell: Doorbell, sock: socket.socket, number: int) -> int:
    """The publisher; how many packets it sent."""
    while ring.enqueue(number.to_bytes(4, "little")) & layout.FULL:
        pass
    if bell.ring():
        sock.send(b"w")
        return 1
    return 0


@both_pairs
def test_two_threads_that_sleep_and_ring_lose_nothing(make: MakeBell, make_ring: MakeRing) -> None:
    """Promise 3: the receive below has no entry to wait for any more if a wake-up is lost, and times out."""
    region, word, entries = memoryview(bytearray(4096)), bytearray(4), 2000
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(PATIENCE)
    sent = list[int]()

    def run() -> None:
        ring, bell = make_ring(region, 4000), make(word, 0)
        sent.append(sum(publish(ring, bell, theirs, number) for number in range(entries)))
        theirs.shutdown(socket.SHUT_RDWR)

    thread = threading.Thread(target=run)
    with ours, theirs:
        thread.start()
        read, sleeps = read_all(make_ring(region, 4000), make(word, 0), ours, entries)
        thread.join(PATIENCE)
    assert read == list(range(entries))
    assert 0 <= sleeps <= sent[0] <= entries
