"""What a person sees of the demonstration: progress while it runs, then what happened, and whether all is right."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from machport import DaemonUnavailable, Task
from machport.demo.protocol import FileResult, Summary
from machport.demo.supervisor import Outcome, Supervisor

_EXPLANATIONS = {
    "PortDestroyedNotification": "a killed server's receive right came back; each server has two, service and wake-up",
    "DeadNameNotification": "a process ended",
    "SendOnceNotification": "a right to answer was destroyed unused",
    "NoSendersNotification": "nobody can call the service any more",
}


@contextmanager
def private_daemon() -> Iterator[Path]:
    """A daemon that only this demonstration knows, gone afterwards.

    Raises:
        DaemonUnavailable: it did not start.
    """
    with tempfile.TemporaryDirectory(prefix="machport-") as directory:
        path = Path(directory) / "daemon.sock"
        command = [sys.executable, "-m", "machport.server", "--socket", str(path), "--ready"]
        daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        try:
            assert daemon.stdout is not None
            if not daemon.stdout.readline():
                raise DaemonUnavailable("the private daemon did not start; its reason stands above")
            yield path
        finally:
            daemon.terminate()
            daemon.communicate()


def demonstrate(console: Console, directory: Path | None, *, kills: int, seed: int) -> bool:
    """Run the demonstration and report; whether every file was answered once and rightly.

    Without a directory it digests the running Python's own standard library, which packages are no part of.
    """
    leave_out = frozenset({"site-packages"}) if directory is None else frozenset[str]()
    directory = Path(os.__file__).parent if directory is None else directory
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("files  {task.fields[size]}  {task.fields[kills]} killed"),
        TimeElapsedColumn(),
    )
    with (
        private_daemon() as path,
        Task(label="supervisor", path=path) as task,
        Progress(*columns, console=console) as bar,
    ):
        row = bar.add_task("digesting", total=None, size="", kills=0)

        def show(answered: int, size: int, killed: int) -> None:
            bar.update(row, completed=answered, total=supervisor.outcome.total, size=decimal(size), kills=killed)

        supervisor = Supervisor(task, directory, leave_out=leave_out, kills=kills, seed=seed, progress=show)
        outcome = supervisor.run()
    return report(console, outcome, seed)


def report(console: Console, outcome: Outcome, seed: int) -> bool:
    """Tell what happened; whether all is right."""
    summary = outcome.summary
    if summary is None:
        console.print("[red]The client ended without a summary; what it said stands above.")
        return False
    with console.status("computing every digest directly, to compare"):
        wrong = [file for file in summary.files if not file.error and file.digest != _digest(file.path)]
    unreadable = [file for file in summary.files if file.error]
    not_once = [file for file in summary.files if not file.error and file.answers != 1]

    if not summary.files:
        console.print(f"{outcome.directory} has no files: nothing was asked.")
        return True
    console.print(_totals(outcome, summary))
    if outcome.kills:
        console.print(_kills(outcome, seed))
    if len(outcome.kills) < outcome.kills_wanted:
        console.print(f"Only {len(outcome.kills)} of {outcome.kills_wanted} kills: the files were too few for more.")
    console.print(_notifications(outcome))
    _list(console, "could not be read", unreadable)
    _list(console, "were not answered exactly once", not_once)
    _list(console, "have another digest when computed directly (were they changed meanwhile?)", wrong)
    right = not (unreadable or not_once or wrong)
    if right:
        console.print(
            f"[green]Every one of {len(summary.files)} files was answered exactly once, and every digest agrees with "
            "one computed directly."
        )
    return right


def _totals(outcome: Outcome, summary: Summary) -> Table:
    table = Table(title=f"Digests of {outcome.directory}", show_header=False, title_justify="left")
    size = sum(file.size for file in summary.files)
    answered = sum(file.answers for file in summary.files)
    seconds = max(summary.seconds, 1e-9)
    table.add_row("files answered", f"{answered:,} of {outcome.total:,}")
    table.add_row("bytes through the data queue", f"{size:,} ({decimal(size)})")
    table.add_row("time", f"{summary.seconds:.2f} s")
    table.add_row("throughput", f"{decimal(int(size / seconds))}/s, {answered / seconds:,.0f} files/s")
    table.add_row("asked again", f"{summary.came_back:,} requests that a killed server had received")
    table.add_row("queue entries", f"{summary.entries:,}; {summary.stale_entries:,} stale ones were passed over")
    table.add_row("waits for room in the queue", f"{summary.waits_for_room:,}")
    return table


def _kills(outcome: Outcome, seed: int) -> Table:
    table = Table(title=f"Servers killed with -9 (seed {seed})", title_justify="left")
    for heading in ("server", "process", "after files", "waiting at the port", "came back", "successor answered after"):
        table.add_column(heading, justify="right")
    for kill in outcome.kills:
        after = "nothing was left to answer" if kill.seconds is None else f"{kill.seconds * 1000:.0f} ms"
        numbers = (kill.generation, kill.pid, kill.at, kill.waiting, kill.came_back)
        table.add_row(*map(str, numbers), after)
    return table


def _notifications(outcome: Outcome) -> Table:
    table = Table(title="Notifications seen", title_justify="left")
    table.add_column("by")
    table.add_column("kind")
    table.add_column("number", justify="right")
    table.add_column("says")
    for (who, kind), count in sorted(outcome.notifications.items()):
        table.add_row(who, kind.removesuffix("Notification"), f"{count:,}", _EXPLANATIONS.get(kind, ""))
    return table


def _list(console: Console, what: str, files: list[FileResult], most: int = 10) -> None:
    if not files:
        return
    console.print(f"[yellow]{len(files)} {'file' if len(files) == 1 else 'files'} {what}:")
    for file in files[:most]:
        console.print(f"  {file.path}" + (f": {file.error}" if file.error else ""), highlight=False, markup=False)
    if len(files) > most:
        console.print(f"  and {len(files) - most} more")


def _digest(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
