"""Two processors with store buffers, small enough that every order of their steps can be tried.

As x86 has them: a store waits in the processor's own buffer, first in, first out, until it reaches memory at any later
moment; a load sees the processor's own waiting stores first; an exchange and a fence wait until the buffer is empty.
Shares no line with the ring.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

#: Words of shared memory.
TAIL: Final = 0
BELL: Final = 1
SILENT: Final = 0
ARMED: Final = 1


class Step(NamedTuple):
    """One instruction: its name, a word or a value that it needs, and where to go on if it says no."""

    name: str
    word: int = 0
    value: int = 0
    otherwise: str = ""


#: Instructions, and the names of places among them.
Program = tuple[Step | str, ...]


@dataclass(frozen=True)
class Side:
    """One processor: where it is, what it loaded last, how many entries it has read, and its waiting stores."""

    at: int = 0
    loaded: int = 0
    read: int = 0
    buffer: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class State:
    """Everything, at one moment.

    ``armed`` counts the periods that the sleeper began by arming, ``won`` those that it ended by disarming, and
    ``rung`` those that the publisher ended, which it then owes a packet for; ``packets`` are those not taken yet.
    """

    memory: tuple[int, int] = (0, SILENT)
    packets: int = 0
    armed: int = 0
    won: int = 0
    rung: int = 0
    publisher: Side = Side()
    sleeper: Side = Side()


def publisher(entries: int, *, fence: bool = True, exchange: bool = True) -> Program:
    """Publishes entries one by one, and rings after each."""
    steps: list[Step | str] = []
    for number in range(1, entries + 1):
        steps.append(Step("store", TAIL, number))
        if fence:
            steps.append(Step("fence"))
        steps += [Step("load", BELL), Step("if loaded", 0, ARMED, f"published {number}")]
        if exchange:
            steps += [Step("exchange", BELL, SILENT), Step("if loaded", 0, ARMED, f"published {number}")]
        else:
            steps.append(Step("store", BELL, SILENT))
        steps += [Step("post"), f"published {number}"]
    return tuple(steps)


def sleeper(
    entries: int, *, fence: bool = True, second_look: bool = True, disarm: bool = True, exchange: bool = True
) -> Program:
    """Reads all entries, and sleeps where there is none."""
    arm = [Step("exchange", BELL, ARMED), Step("fence")] if fence else [Step("store", BELL, ARMED)]
    look = [Step("load", TAIL), Step("if new", otherwise="sleep")] if second_look else [Step("go", otherwise="sleep")]
    stay = [Step("exchange" if exchange else "store", BELL, SILENT)] if disarm else []
    return (
        "look",
        Step("load", TAIL),
        Step("if new", otherwise="arm"),
        "read",
        Step("read"),
        Step("if more", 0, entries, "end"),
        Step("go", otherwise="look"),
        "arm",
        *arm,
        *look,
        *stay,
        Step("go", otherwise="read"),
        "sleep",
        Step("sleep"),
        Step("go", otherwise="look"),
        "end",
    )


class Fault(Exception):
    """What must never be, and the state in which it is."""


class Machine:
    """Both programs, and every state that they can come to."""

    def __init__(self, publisher: Program, sleeper: Program, entries: int) -> None:
        self.programs = {"publisher": publisher, "sleeper": sleeper}
        self.entries = entries
        self.states: set[State] = set()

    def explore(self) -> None:
        """Try every order.

        Raises:
            Fault: nobody can go on and an entry is unread, or a period of arming ended twice.
        """
        waiting = [State()]
        while waiting:
            state = waiting.pop()
            if state in self.states:
                continue
            self.states.add(state)
            if state.won + state.rung > state.armed:
                raise Fault(f"woken twice for one sleep: {state}")
            following = [*self._steps(state, "publisher"), *self._steps(state, "sleeper")]
            if not following and not self._is_done(state):
                raise Fault(f"asleep with an entry to read: {state}")
            waiting += following

    def finals(self) -> list[State]:
        """States in which both are done."""
        return [state for state in self.states if self._is_done(state)]

    def _is_done(self, state: State) -> bool:
        return (
            self._step(state.publisher, "publisher") is None
            and self._step(state.sleeper, "sleeper") is None
            and state.sleeper.read == self.entries
        )

    def _step(self, side: Side, who: str) -> Step | None:
        program, at = self.programs[who], side.at
        while at < len(program):
            step = program[at]
            if isinstance(step, Step):
                return step
            at += 1
        return None

    def _steps(self, state: State, who: str) -> Iterator[State]:
        """Each state that one side can make of this one."""
        side: Side = getattr(state, who)
        if side.buffer:
            (word, value), *rest = side.buffer
            yield self._moved(state, who, memory=put(state.memory, word, value), buffer=tuple(rest))
        step = self._step(side, who)
        if step is None:
            return
        match step.name:
            case "store":
                # Who disarms by a store believes that it has won, because it is not told otherwise.
                counts = self._counted(state, who, step, ARMED)
                yield self._moved(state, who, step, buffer=(*side.buffer, (step.word, step.value)), counts=counts)
            case "load":
                own = [value for word, value in side.buffer if word == step.word]
                yield self._moved(state, who, step, loaded=own[-1] if own else state.memory[step.word])
            case "fence" if not side.buffer:
                yield self._moved(state, who, step)
            case "exchange" if not side.buffer:
                before = state.memory[step.word]
                memory = put(state.memory, step.word, step.value)
                counts = self._counted(state, who, step, before)
                yield self._moved(state, who, step, memory=memory, loaded=before, counts=counts)
            case "if loaded":
                yield self._moved(state, who, step, jump=side.loaded != step.value)
            case "if new":
                yield self._moved(state, who, step, jump=side.loaded <= side.read)
            case "if more":
                yield self._moved(state, who, step, jump=side.read == step.value)
            case "go":
                yield self._moved(state, who, step, jump=True)
            case "read":
                yield self._moved(state, who, step, read=side.read + 1)
            case "post":
                yield self._moved(state, who, step, counts={"packets": state.packets + 1})
            case "sleep" if state.packets:
                yield self._moved(state, who, step, counts={"packets": state.packets - 1})

    def _counted(self, state: State, who: str, step: Step, before: int) -> dict[str, int]:
        """How a write to the bell counts, that finds ``before`` there."""
        if step.word != BELL:
            return {}
        if step.value == ARMED:
            return {"armed": state.armed + 1}
        count = "rung" if who == "publisher" else "won"
        return {count: getattr(state, count) + (before == ARMED)}

    def _moved(
        self,
        state: State,
        who: str,
        step: Step | None = None,
        *,
        jump: bool = False,
        memory: tuple[int, int] | None = None,
        buffer: tuple[tuple[int, int], ...] | None = None,
        loaded: int | None = None,
        read: int | None = None,
        counts: dict[str, int] | None = None,
    ) -> State:
        side: Side = getattr(state, who)
        at = side.at
        if step is not None:
            program = self.programs[who]
            at = program.index(step.otherwise) if jump else program.index(step, at) + 1
        moved = Side(
            at,
            side.loaded if loaded is None else loaded,
            side.read if read is None else read,
            side.buffer if buffer is None else buffer,
        )
        fields = {**state.__dict__, **(counts or {}), who: moved}
        if memory is not None:
            fields["memory"] = memory
        return State(**fields)


def put(memory: tuple[int, int], word: int, value: int) -> tuple[int, int]:
    return (value, memory[1]) if word == TAIL else (memory[0], value)
