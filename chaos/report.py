"""What a run found: the figures that were asked for and reached, and everything that was not as promised."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from machport import is_compiled

#: Where reports are kept, one for each program.
REPORTS: Final = Path(__file__).parent / "reports"


@dataclass
class Report:
    """The outcome of one run, filled by the program while it runs.

    Attributes:
        name, promise: the program, and what it tries to break.
        amount, unit, seed: how long the run was, and what decided what is chosen at random.
        figures: what was measured, what was asked for ("" if nothing was), and whether that was reached.
        anomalies: what was not as promised, one sentence each; none in a good run.
        notes: what a reader should know of this run.
    """

    name: str
    promise: str
    amount: float
    unit: str
    seed: int
    figures: list[tuple[str, str, str, bool]] = field(default_factory=list)
    anomalies: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def figure(self, what: str, measured: object, asked: str = "", reached: bool = True) -> None:
        """Add a figure."""
        self.figures.append((what, asked, str(measured), reached))

    def anomaly(self, says: str) -> None:
        """Something was not as promised; told at once, because a run may be long."""
        self.anomalies.append(says)
        print(f"anomaly: {says}", flush=True)

    @property
    def good(self) -> bool:
        return not self.anomalies and all(reached for *_, reached in self.figures)

    @property
    def command(self) -> str:
        return f"python -m chaos {self.name} --amount {self.amount:g} --seed {self.seed}"

    def show(self, console: Console) -> None:
        """Print it."""
        table = Table("figure", "asked", "measured", title=f"{self.name}: {self.promise}", title_justify="left")
        for what, asked, measured, reached in self.figures:
            table.add_row(what, asked, measured if reached else f"[red]{measured}")
        table.add_row("anomalies", "0", str(len(self.anomalies)))
        console.print(table)
        for note in self.notes:
            console.print(note, markup=False)
        console.print(f"{self._seconds()} s; again by: {self.command}", markup=False)

    def write(self, directory: Path = REPORTS) -> Path:
        """Keep it as a page; where it is."""
        directory.mkdir(exist_ok=True)
        lines = [f"# {self.name}", "", self.promise, "", f"    {self.command}", ""]
        lines += [
            f"{self._seconds()} s on {os.cpu_count()} cores, Linux {platform.release().split('-')[0]}, "
            f"Python {platform.python_version()}, {'compiled' if is_compiled() else 'interpreted'}, "
            f"{time.strftime('%Y-%m-%d')}.",
            "",
            "| figure | asked | measured |",
            "|---|---|---|",
        ]
        for what, asked, measured, reached in self.figures:
            lines.append(f"| {what} | {asked} | {measured}{'' if reached else ' (not reached)'} |")
        lines.append(f"| anomalies | 0 | {len(self.anomalies)} |")
        lines += [""] + [f"- {says}" for says in (*self.anomalies, *self.notes)]
        path = directory / f"{self.name}.md"
        path.write_text("\n".join(lines).rstrip() + "\n")
        return path

    def _seconds(self) -> str:
        return f"{time.monotonic() - self.began:.0f}"
