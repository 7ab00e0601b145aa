"""Figures, and what becomes of their samples: rounds, medians, ratios to the base of the same round, targets.

The machine's speed wanders from minute to minute.  So all contenders of a figure take turns, round after round, and
what is compared is the ratio within a round.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, ClassVar

from bench import machine
from bench.harness import Failed
from bench.peers import Peer


@dataclass(frozen=True)
class Plan:
    """How thoroughly to measure.

    Attributes:
        rounds: how often each contender has its turn.
        seconds: of one series.
        quick: only see that everything works, with few contenders' worth of numbers.
        only: parts of names of the contenders wanted beside the base; all if empty.
    """

    rounds: int = 5
    seconds: float = 0.4
    quick: bool = False
    only: Sequence[str] = ()

    def wants(self, contender: str) -> bool:
        return not self.only or any(part.lower() in contender.lower() for part in self.only)


@dataclass(frozen=True)
class Sample:
    """What one measurement found, by metric.

    A metric is a number, a list of peaks, words where there is no number, or None for what does not apply.

    Attributes:
        table: which of the figure's tables it belongs to.
        column: and which column there.
    """

    table: str
    column: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """One turn of one contender: it measures when it is run."""

    contender: str
    where: str
    run: Callable[[], Sequence[Sample]]


@dataclass(frozen=True)
class Record:
    """A sample, or the error in its place, with its round."""

    figure: str
    contender: str
    round: int
    table: str = ""
    column: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    def as_json(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if value not in ("", {})}


@dataclass(frozen=True)
class Metric:
    """A number that samples have.

    Attributes:
        heading: over its column, with the unit.
    """

    key: str
    heading: str


@dataclass(frozen=True)
class Target:
    """What a contender is to reach.

    Attributes:
        text: the target in words.
        of_base: the number is the ratio to the base in the same round.
        of: the number is the ratio to this contender in the same round.
        most, least: the number must not be above, or below.
    """

    text: str
    contender: str
    table: str
    column: str
    metric: str
    of_base: bool = False
    of: str = ""
    most: float | None = None
    least: float | None = None

    def reached(self, value: float) -> bool:
        return (self.most is None or value <= self.most) and (self.least is None or value >= self.least)


class Figure(ABC):
    """One question, asked of some contenders.

    Attributes:
        name: of the command.
        about: what is measured, for readers of the table.
        metrics: what the tables show; ratios are made of the first one that is shown.
        base: the contender that others are compared with.
        most_rounds: no more, whatever is asked for, because one takes long and varies little.
        least_rounds: no fewer, unless the plan is quick, because single ones scatter.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    about: ClassVar[str]
    metrics: ClassVar[Sequence[Metric]]
    base: ClassVar[str] = ""
    targets: ClassVar[Sequence[Target]] = ()
    peers: ClassVar[Sequence[type[Peer]]] = ()
    most_rounds: ClassVar[int] = 1000
    least_rounds: ClassVar[int] = 1

    @abstractmethod
    def trials(self, plan: Plan) -> Iterable[Trial]:
        """The turns of one round."""

    def wanted(self, plan: Plan) -> list[type[Peer]]:
        """The peers that are installed, less those that the plan does not want."""
        peers = [peer for peer in self.peers if not peer.missing()]
        return [peer for peer in peers if peer.name == self.base or plan.wants(peer.name)]

    def missing(self) -> list[str]:
        """Peers that cannot be measured, with what they lack."""
        return [f"{peer.name} (needs {peer.missing()})" for peer in self.peers if peer.missing()]


def measure(
    figure: Figure,
    plan: Plan,
    keep: Callable[[Record], object],
    tell: Callable[[str], object],
    others: list[float],
) -> None:
    """Measure a figure in rounds; who fails once is told of, and has no more turns there.

    Args:
        keep: is given each record.
        tell: is told what is going on.
        others: gets for each round how busy the machine was without us, of 1.
    """
    failed = set()
    rounds = 1 if plan.quick else max(figure.least_rounds, min(plan.rounds, figure.most_rounds))
    for number in range(rounds):
        others.append(machine.busy(0.05 if plan.quick else 0.2))
        turns = list(figure.trials(plan))
        # Forth and back: nobody is always measured behind the same neighbour.
        for trial in reversed(turns) if number % 2 else turns:
            key = (trial.contender, trial.where)
            if key in failed:
                continue
            tell(f"{figure.name}, round {number + 1} of {rounds}: {trial.contender}, {trial.where}")
            try:
                samples = trial.run()
            except Exception as error:
                failed.add(key)
                says = str(error) if isinstance(error, Failed) else f"{type(error).__name__}: {error}"
                keep(Record(figure.name, trial.contender, number, error=f"{trial.where}: {says}".removeprefix(": ")))
                continue
            for sample in samples:
                keep(Record(figure.name, trial.contender, number, sample.table, sample.column, sample.values))
            time.sleep(0.01)


class Results:
    """The records of one figure, asked for what the tables show."""

    def __init__(self, figure: Figure, records: Iterable[Record]) -> None:
        self.figure = figure
        self._records = [record for record in records if record.figure == figure.name]
        self._samples = [record for record in self._records if not record.error]

    def tables(self) -> list[str]:
        return list(dict.fromkeys(record.table for record in self._samples))

    def columns(self, table: str) -> list[str]:
        """In the order in which they were first measured."""
        first = sorted((r.round, n, r.column) for n, r in enumerate(self._samples) if r.table == table)
        return list(dict.fromkeys(column for _, _, column in first))

    def contenders(self, table: str) -> list[str]:
        first = sorted((r.round, n, r.contender) for n, r in enumerate(self._samples) if r.table == table)
        return list(dict.fromkeys(contender for _, _, contender in first))

    def errors(self) -> list[str]:
        return [f"{record.contender}, {record.error}" for record in self._records if record.error]

    def values(self, contender: str, table: str, column: str, metric: str) -> dict[int, Any]:
        """What was measured, by round."""
        return {
            record.round: record.values[metric]
            for record in self._samples
            if (record.contender, record.table, record.column) == (contender, table, column)
            and record.values.get(metric) is not None
        }

    def typical(self, contender: str, table: str, column: str, metric: Metric) -> Any:
        """The median over the rounds, of peaks the largest of each; words as they are; None for nothing."""
        values = list(self.values(contender, table, column, metric.key).values())
        if not values:
            return None
        if isinstance(values[-1], list):
            return [max(peaks) for peaks in zip(*values, strict=False)]
        if any(isinstance(value, str) for value in values):
            return values[-1]
        return median(values)

    def of_base(self, contender: str, table: str, column: str, metric: str) -> float | None:
        """The median of the ratios to the base of the same round."""
        return self.ratio(contender, self.figure.base, table, column, metric)

    def ratio(self, contender: str, other: str, table: str, column: str, metric: str) -> float | None:
        """The median of the ratios to another contender of the same round."""
        base = self.values(other, table, column, metric)
        own = self.values(contender, table, column, metric)
        ratios = [own[number] / base[number] for number in own if base.get(number) and not isinstance(own[number], str)]
        return median(ratios) if ratios else None

    def judge(self, target: Target) -> float | None:
        """The number that a target is about; None if it was not measured."""
        if target.of_base or target.of:
            other = target.of or self.figure.base
            return self.ratio(target.contender, other, target.table, target.column, target.metric)
        number = self.typical(target.contender, target.table, target.column, Metric(target.metric, ""))
        return float(number) if isinstance(number, int | float) else None


def percentile(numbers: Sequence[float], part: float) -> float:
    """The number below which this part of the numbers lies; 0.5 is the median."""
    ordered = sorted(numbers)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]
