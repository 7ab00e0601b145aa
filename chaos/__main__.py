"""``python -m chaos``."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

from chaos.report import Report

#: What a program has and its parts have not.
_RUN: Final = "\ndef run(report: Report)"


class _Programs(click.Group):
    """Each module is a command, imported when it is asked for: some need what others do not."""

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if _RUN in path.read_text())

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in self.list_commands(context):
            return None
        return _command(name, import_module(f"chaos.{name}"))


def _command(name: str, program: Any) -> click.Command:
    promise = " ".join((program.__doc__ or "").split("\n\n")[0].split())
    run: Callable[[Report], None] = program.run

    @click.command(name, help=promise)
    @click.option("--amount", type=float, default=program.AMOUNT, show_default=True, help=f"How many {program.UNIT}.")
    @click.option("--seed", type=int, help="Of what is chosen at random; random itself by default.")
    @click.option("--write", is_flag=True, help="Keep the report in chaos/reports.")
    def command(amount: float, seed: int | None, write: bool) -> None:
        seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
        report = Report(name, promise, amount, program.UNIT, seed)
        click.echo(f"{name}: {amount:g} {program.UNIT}, seed {seed}")
        run(report)
        report.show(Console())
        if write:
            report.write()
        sys.exit(0 if report.good else 1)

    return command


@click.group(cls=_Programs, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Make bad days, and see whether machport keeps its promises."""


if __name__ == "__main__":
    main(prog_name="python -m chaos")
