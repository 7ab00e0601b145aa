"""Tables of results, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

from bench.results import Figure, Metric, Record, Results

BEGIN: Final = "<!-- measured: what stands between these lines is written by python -m bench --page -->"
END: Final = "<!-- end of what was measured -->"


@dataclass(frozen=True)
class Sheet:
    """One table: a title, headings, rows of text."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """A figure's tables, and what is to be said below them."""

    title: str
    about: str
    sheets: Sequence[Sheet]
    notes: Sequence[str]


def section(figure: Figure, records: Iterable[Record]) -> Section:
    """What the records say about a figure."""
    results = Results(figure, records)
    sheets = [_sheet(results, table) for table in results.tables()]
    notes = [f"Failed: {error}" for error in results.errors()]
    if lacking := figure.missing():
        notes.append(f"Not measured: {'; '.join(lacking)}.")
    return Section(figure.title, figure.about, sheets, [*_verdicts(results), *notes])


def _sheet(results: Results, table: str) -> Sheet:
    figure = results.figure
    columns = results.columns(table)
    headings = [""]
    for column in columns:
        shown = _shown(results, table, column)
        headings += [f"{column}, {metric.heading}".removeprefix(", ") for metric in shown[:1]]
        headings += [metric.heading for metric in shown[1:]]
        if figure.base:
            headings.append("× base")
    rows = []
    for contender in results.contenders(table):
        row = [contender]
        for column in columns:
            for metric in _shown(results, table, column):
                row.append(number(results.typical(contender, table, column, metric)))
            if figure.base:
                compared = _shown(results, table, column)[0].key
                row.append(number(results.of_base(contender, table, column, compared)))
        rows.append(row)
    return Sheet(table, headings, rows)


def _shown(results: Results, table: str, column: str) -> list[Metric]:
    """The metrics that anybody has in a column."""
    return [
        metric
        for metric in results.figure.metrics
        if any(results.values(contender, table, column, metric.key) for contender in results.contenders(table))
    ]


def _verdicts(results: Results) -> list[str]:
    verdicts = []
    for target in results.figure.targets:
        value = results.judge(target)
        if value is None:
            verdicts.append(f"To reach: {target.text}. Not measured in this run.")
        else:
            word = "reached" if target.reached(value) else "NOT reached"
            verdicts.append(f"To reach: {target.text}. It is {number(value)}: {word}.")
    return verdicts


def number(value: Any) -> str:
    """A number with about three digits; text as it is."""
    if value is None:
        return "–"
    if isinstance(value, list):
        return " + ".join(f"{peak:.0f}" for peak in value)
    if isinstance(value, str):
        return value
    size = abs(value)
    if size >= 1_000_000:
        return f"{value / 1e6:.3g} M"
    if size >= 10_000:
        return f"{value / 1e3:.3g} k" if size >= 100_000 else f"{value:,.0f}"
    if size >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def show(console: Console, shown: Section) -> None:
    """Print a section on a terminal."""
    console.print()
    console.print(f"[bold]{shown.title}[/]")
    console.print(shown.about)
    for sheet in shown.sheets:
        table = Table(title=sheet.title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for index, heading in enumerate(sheet.headings):
            table.add_column(heading, justify="right" if index else "left", overflow="fold")
        for row in sheet.rows:
            table.add_row(*row)
        console.print(table)
    for note in shown.notes:
        console.print(f"- {note}", markup=False, highlight=False)


def markdown(shown: Section) -> str:
    """A section as Markdown."""
    lines = [f"### {shown.title}", "", shown.about, ""]
    for sheet in shown.sheets:
        if sheet.title:
            lines += [f"**{sheet.title}**", ""]
        lines.append(f"| {' | '.join(sheet.headings)} |")
        lines.append("|" + "|".join(["---", *(["---:"] * (len(sheet.headings) - 1))]) + "|")
        lines += [f"| {' | '.join(row)} |" for row in sheet.rows]
        lines.append("")
    lines += [f"- {note}" for note in shown.notes]
    return "\n".join(lines).rstrip() + "\n"


def fill(page: Path, text: str) -> None:
    """Put text between the marks of a page.

    Raises:
        ValueError: the page has no marks.
    """
    before, begun, rest = page.read_text().partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not begun or not ended:
        raise ValueError(f"{page} has no lines {BEGIN!r} and {END!r}")
    page.write_text(f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{after}")
