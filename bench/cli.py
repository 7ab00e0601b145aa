"""``python -m bench``: measure, show, keep."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import TextIO

import click
from rich.console import Console

from bench import machine, report
from bench.figures import FIGURES
from bench.results import Figure, Plan, Record, measure


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", metavar="[FIGURE]...", nargs=-1, type=click.Choice(list(FIGURES)))
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Turns of each contender.")
@click.option("--seconds", type=float, default=0.4, show_default=True, help="Length of one series.")
@click.option("--quick", is_flag=True, help="One short round: see that everything works; the numbers mean little.")
@click.option("--only", multiple=True, metavar="TEXT", help="Only contenders with TEXT in their names, and the base.")
@click.option("--out", type=click.Path(path_type=Path), help="Append everything measured to this file, as JSON lines.")
@click.option(
    "--from",
    "saved",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="Measure nothing; show what such a file has.  May be given more than once.",
)
@click.option("--markdown", is_flag=True, help="Print Markdown.")
@click.option(
    "--page", type=click.Path(exists=True, path_type=Path), help="Also put the tables into this Markdown page."
)
@click.option("--list", "listed", is_flag=True, help="Name the figures, and leave.")
def main(
    names: tuple[str, ...],
    rounds: int,
    seconds: float,
    quick: bool,
    only: tuple[str, ...],
    out: Path | None,
    saved: tuple[Path, ...],
    markdown: bool,
    page: Path | None,
    listed: bool,
) -> None:
    """Measure machport beside other ways of talking between processes.

    FIGURE is what to measure; everything if none is named.  Contenders take turns, so that they share the machine's
    noise; ratios are made within a round.  What is not installed is named and left out.
    """
    if listed:
        for figure in FIGURES.values():
            click.echo(f"{figure.name:20} {figure.title}")
        return
    plan = Plan(1, 0.05, True, only) if quick else Plan(rounds, seconds, False, only)
    figures = [FIGURES[name] for name in names or FIGURES]
    if saved:
        run = _read(saved)
        figures = [figure for figure in figures if names or any(record.figure == figure.name for record in run[1])]
    else:
        run = _measure(figures, plan, out)
    about, records = run
    sections = [report.section(figure, records) for figure in figures]
    text = "\n".join([_about(about), *map(report.markdown, sections)])
    if markdown:
        click.echo(text)
    else:
        # The tables are wide; a terminal that is not can still show them in lines that it folds.
        console = Console(width=max(180, Console().width))
        for line in _about(about).splitlines():
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        for section in sections:
            report.show(console, section)
    if page is not None:
        try:
            report.fill(page, text)
        except ValueError as error:
            raise click.ClickException(str(error)) from None


def _measure(figures: Iterable[Figure], plan: Plan, out: Path | None) -> tuple[dict[str, str], list[Record]]:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    about = {**machine.describe(), "rounds": f"{plan.rounds}, series of {plan.seconds:g} s"}
    records: list[Record] = []
    file: TextIO | None = out.open("a") if out is not None else None
    progress = Console(stderr=True)

    def keep(record: Record) -> None:
        records.append(record)
        if file is not None:
            print(json.dumps(record.as_json()), file=file, flush=True)
        if record.error:
            progress.print(f"failed: {record.contender}, {record.error}", markup=False, highlight=False, soft_wrap=True)

    if file is not None:
        print(json.dumps({"machine": about}), file=file, flush=True)
    others: list[float] = []
    with progress.status("") as status:
        try:
            for figure in figures:
                measure(figure, plan, keep, status.update, others)
        except KeyboardInterrupt:
            progress.print("interrupted; what follows was measured before", soft_wrap=True)
    if others:
        neighbours = f"between rounds other programs used {median(others):.0%} of the cores, at most {max(others):.0%}"
        about["neighbours"] = neighbours
        if file is not None:
            print(json.dumps({"machine": {"neighbours": neighbours}}), file=file)
    if file is not None:
        file.close()
    return about, records


def _read(paths: Iterable[Path]) -> tuple[dict[str, str], list[Record]]:
    """What files have; rounds of several runs are told apart by their numbers."""
    about: dict[str, str] = {}
    records: list[Record] = []
    runs = 0
    for path in paths:
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            if "machine" in entry:
                about |= entry["machine"]
                runs += "when" in entry["machine"]
            else:
                entry["round"] += runs * 1000
                records.append(Record(**entry))
    return about, records


def _about(about: dict[str, str]) -> str:
    return "\n".join(f"- {key}: {value}" for key, value in about.items()) + "\n"
