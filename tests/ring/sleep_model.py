"""Both sides of a data queue that sleep and wake each other, small enough that every order of their steps can be tried.

Two processors with store buffers, as in ``bell_model``: a store reaches memory at any later moment, in order; an
exchange, a fence and a system call wait until the buffer is empty.  The consumer lends: what it has taken is behind
the head until it lets go.  It sleeps at its bell (a futex: who wakes wakes nobody who is not yet asleep), at a socket
(packets stay), or at a notification port (one message at most).  Shares no line with the source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

HEAD: Final = 0
TAIL: Final = 1
#: The consumer's bell, and the producer's.
CBELL: Final = 2
PBELL: Final = 3
SILENT: Final = 0
ARMED: Final = 1
#: The ways in which the consumer sleeps.
WAYS: Final = ("bell", "socket", "port")

#: What was loaded last, and two numbers of the side's own.
Registers = tuple[int, int, int]
Rule = Callable[[int, int, int], Any]


class Step(NamedTuple):
    """One instruction: its name, a word of memory, what it needs to decide, and where to go on otherwise."""

    name: str
    word: int = 0
    rule: Rule = lambda *_: 0
    otherwise: str = ""


Program = tuple[Step | str, ...]


class Side(NamedTuple):
    at: int = 0
    registers: Registers = (0, 0, 0)
    asleep: bool = False
    buffer: tuple[tuple[int, int], ...] = ()


class State(NamedTuple):
    memory: tuple[int, int, int, int] = (0, 0, SILENT, SILENT)
    #: Packets for the consumer that nobody has taken; for the port, whether a message waits.
    posted: int = 0
    sides: tuple[Side, Side] = (Side(), Side())


def is_armed(loaded: int, *_: int) -> bool:
    return loaded == ARMED


def _wake(way: str) -> Step:
    return Step("wake") if way == "bell" else Step("post", 1 if way == "port" else 0)


def _ring(bell: int, wake: Step, name: str, *, fence: bool = True) -> list[Step | str]:
    """After publishing or making room: wake the other side if its bell is armed; goes on at ``name`` if it was not."""
    return [
        *([Step("fence")] if fence else []),
        Step("load", bell),
        Step("unless", 0, is_armed, name),
        Step("exchange", bell, lambda *_: SILENT),
        Step("unless", 0, is_armed, name),
        wake,
    ]


def producer(
    entries: int,
    room: int,
    way: str,
    *,
    fence: bool = True,
    arm: bool = True,
    second_look: bool = True,
    tell: bool = True,
    rule_27: bool = True,
) -> Program:
    """Adds entries one by one, and sleeps at its bell while there is no room.  Its own number is the tail."""
    notify = [Step("post", 1)] if way == "port" else []
    steps: list[Step | str] = []
    for number in range(1, entries + 1):
        full, told, done = f"full {number}", f"told {number}", f"done {number}"
        steps += [
            f"look {number}",
            Step("load", HEAD),
            Step("set", 0, lambda a, x, y: (x, a)),  # the head as first read
            Step("unless", 0, lambda a, x, y: x - a < room, full),
            Step("store", TAIL, lambda a, x, y: x + 1),
            *_ring(CBELL, _wake(way), told, fence=fence),
            told,
        ]
        if notify and rule_27:
            # Q27: the ring was empty, or the head has caught up with the old tail after the fence.
            steps += [
                Step("unless", 0, lambda a, x, y: x != y, f"notify {number}"),
                Step("fence"),
                Step("load", HEAD),
                Step("unless", 0, lambda a, x, y: a == x, done),
                f"notify {number}",
                *notify,
            ]
        steps += [
            done,
            Step("set", 0, lambda a, x, y: (x + 1, y)),
            Step("go", otherwise=f"next {number}"),
            full,
            *notify,
            Step("exchange", PBELL, lambda *_: ARMED) if arm else Step("store", PBELL, lambda *_: ARMED),
        ]
        if second_look:
            steps += [Step("load", HEAD), Step("unless", 0, lambda a, x, y: x - a >= room, f"awake {number}")]
        if tell:
            steps += [*_ring(CBELL, _wake(way), f"sleep {number}")]
        steps += [
            f"sleep {number}",
            Step("futex", PBELL),
            f"awake {number}",
            Step("exchange", PBELL, lambda *_: SILENT),
            Step("go", otherwise=f"look {number}"),
            f"next {number}",
        ]
    return tuple(steps)


def consumer(
    entries: int,
    keep: int,
    way: str,
    *,
    fence: bool = True,
    second_look: bool = True,
    room_fence: bool = True,
    ask: bool = True,
    empty_fence: bool = True,
) -> Program:
    """Takes all entries, keeping the last ``keep`` of them lent across its sleeps.

    Its own numbers are how many it has taken, and the head.  If the producer waits for room while it keeps entries, it
    lets go of them (the queue raises ``QueueMisuse`` then, and says so).
    """
    arm = [Step("exchange" if fence else "store", CBELL, lambda *_: ARMED)]
    let_one_go: list[Step | str] = [
        Step("set", 0, lambda a, x, y: (x, y + 1)),
        Step("store", HEAD, lambda a, x, y: y),
    ]
    sleep = Step("futex", CBELL) if way == "bell" else Step("take")
    steps: list[Step | str] = [
        "look",
        Step("load", TAIL),
        Step("unless", 0, lambda a, x, y: a > x, "empty"),
        Step("set", 0, lambda a, x, y: (x + 1, y)),
        Step("unless", 0, lambda a, x, y: x - y > keep, "kept"),
        *let_one_go,
        *_ring(PBELL, Step("wake"), "kept", fence=room_fence),
        "kept",
        Step("unless", 0, lambda a, x, y: x == entries, "look"),
        Step("go", otherwise="end"),
        "empty",
    ]
    look_again: list[Step | str] = [Step("load", TAIL), Step("unless", 0, lambda a, x, y: a <= x, "awake")]
    if way == "port":
        # Nothing lent: a fence since the last entry was given back, a look after it, and Q27 does the rest.
        steps += [Step("unless", 0, lambda a, x, y: x == y, "lent")]
        steps += [Step("fence")] if empty_fence else []
        steps += [*look_again, Step("go", otherwise="sleep"), "lent"]
        steps += [*arm, *look_again] if ask else [*look_again]
    else:
        steps += [*arm, *(look_again if second_look else [])]
    if keep:
        steps += [
            Step("unless", 0, lambda a, x, y: x > y, "sleep"),
            Step("load", PBELL),
            Step("unless", 0, is_armed, "sleep"),
            "let go",
            *let_one_go,
            *_ring(PBELL, Step("wake"), "gone", fence=room_fence),
            "gone",
            Step("unless", 0, lambda a, x, y: x == y, "let go"),
            Step("go", otherwise="awake"),
        ]
    steps += [
        "sleep",
        sleep,
        "awake",
        # Who sleeps at a port leaves its request where it is.
        *([] if way == "port" else [Step("exchange", CBELL, lambda *_: SILENT)]),
        Step("go", otherwise="look"),
        "end",
    ]
    return tuple(steps)


class Fault(Exception):
    """Nobody can go on, and something is left to do."""


class Machine:
    """Both programs, and every state that they can come to."""

    def __init__(self, producer: Program, consumer: Program) -> None:
        self._programs = (producer, consumer)
        self._places = [
            {step: at for at, step in enumerate(program) if isinstance(step, str)} for program in self._programs
        ]
        self.states: set[State] = set()
        self.sleeps = 0

    def explore(self) -> None:
        """Try every order.

        Raises:
            Fault: with the state in which it is.
        """
        first = State()
        first = first._replace(sides=(self._settled(0, Side()), self._settled(1, Side())))
        waiting = [first]
        while waiting:
            state = waiting.pop()
            if state in self.states:
                continue
            self.states.add(state)
            self.sleeps += any(side.asleep for side in state.sides)
            following = [*self._steps(state, 0), *self._steps(state, 1)]
            if not following and any(side.at < len(self._programs[who]) for who, side in enumerate(state.sides)):
                raise Fault(f"asleep for ever: {state}")
            waiting += following

    def _settled(self, who: int, side: Side) -> Side:
        """The side at its next step that anybody else can notice."""
        program, places = self._programs[who], self._places[who]
        at, registers = side.at, side.registers
        while at < len(program):
            step = program[at]
            if isinstance(step, str):
                at += 1
            elif step.name == "set":
                registers = (registers[0], *step.rule(*registers))
                at += 1
            elif step.name == "unless":
                at = at + 1 if step.rule(*registers) else places[step.otherwise]
            elif step.name == "go":
                at = places[step.otherwise]
            else:
                break
        return side._replace(at=at, registers=registers)

    def _steps(self, state: State, who: int) -> Iterator[State]:
        """Each state that one side can make of this one."""
        side = state.sides[who]
        if side.buffer:
            (word, value), *rest = side.buffer
            yield self._moved(
                state._replace(memory=_put(state.memory, word, value)), who, side._replace(buffer=tuple(rest))
            )
        program = self._programs[who]
        if side.at >= len(program) or side.asleep:
            return
        step = program[side.at]
        assert isinstance(step, Step)
        gone_on = side._replace(at=side.at + 1)
        loaded, x, y = side.registers
        match step.name:
            case "store":
                value = step.rule(loaded, x, y)
                yield self._moved(state, who, gone_on._replace(buffer=(*side.buffer, (step.word, value))))
            case "load":
                own = [value for word, value in side.buffer if word == step.word]
                found = own[-1] if own else state.memory[step.word]
                yield self._moved(state, who, gone_on._replace(registers=(found, x, y)))
            case _ if side.buffer:
                pass  # everything else waits for the buffer
            case "fence":
                yield self._moved(state, who, gone_on)
            case "exchange":
                found = state.memory[step.word]
                memory = _put(state.memory, step.word, step.rule(loaded, x, y))
                yield self._moved(state._replace(memory=memory), who, gone_on._replace(registers=(found, x, y)))
            case "wake":
                other = state.sides[1 - who]._replace(asleep=False)
                yield self._moved(self._moved(state, 1 - who, other), who, gone_on)
            case "post":
                posted = 1 if step.word else min(state.posted + 1, 3)
                yield self._moved(state._replace(posted=posted), who, gone_on)
            case "futex":
                asleep = state.memory[step.word] == ARMED
                yield self._moved(state, who, gone_on._replace(asleep=asleep))
            case "take" if state.posted:
                yield self._moved(state._replace(posted=0), who, gone_on)

    def _moved(self, state: State, who: int, side: Side) -> State:
        side = self._settled(who, side)
        return state._replace(sides=(side, state.sides[1]) if who == 0 else (state.sides[0], side))


def _put(memory: tuple[int, int, int, int], word: int, value: int) -> tuple[int, int, int, int]:
    changed = list(memory)
    changed[word] = value
    return changed[0], changed[1], changed[2], changed[3]
