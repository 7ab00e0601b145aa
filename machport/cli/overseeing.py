"""What ``machport deaths`` and ``machport ps`` show."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase

import msgspec
from rich.console import Console
from rich.table import Table

from machport.abi import constants as c
from machport.abi import reports as r
from machport.abi import traps as t
from machport.abi.errors import DeadTask, MachError
from machport.client.oversight import Oversight

#: Seconds between two looks at a death of which more will be known soon.
_PAUSE = 0.2
#: Seconds for which a death is not shown because the system has yet to say how the process ended.
_PATIENCE = 1.0
_KINDS = (
    (c.MACH_PORT_TYPE_RECEIVE, "receive"),
    (c.MACH_PORT_TYPE_SEND, "send"),
    (c.MACH_PORT_TYPE_SEND_ONCE, "send-once"),
    (c.MACH_PORT_TYPE_PORT_SET, "port set"),
    (c.MACH_PORT_TYPE_DEAD_NAME, "dead name"),
)
#: How losses are told, for one and for many.
_LOST = {
    "ports": ("port", "ports"),
    "returned": ("port came back", "ports came back"),
    "send_rights": ("send right", "send rights"),
    "send_once_rights": ("send-once right", "send-once rights"),
    "messages": ("message", "messages"),
    "bytes": ("byte", "bytes"),
}


def new_console() -> Console:
    """Where tables go; as wide as they need where nobody looks at a terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=200)


# Deaths


def show_deaths(oversight: Oversight, *, as_json: bool, follow: bool, most: int, label: str) -> None:
    """Print the last deaths, newest last, and with ``follow`` those to come."""
    answer = r.unpack_report(oversight.report(t.REPORT_DEATHS), r.Deaths)
    found = [death for death in answer.deaths if fnmatchcase(death.label, label)]
    shown = found[len(found) - most :] if most < len(found) else found
    console = new_console()
    if as_json:
        _print_lines(shown)
    elif shown or not follow:
        console.print(deaths_table(shown))
    last = answer.last
    while follow:
        deaths = _settled(oversight, last)
        last = deaths[-1].serial if deaths else last
        wanted = [death for death in deaths if fnmatchcase(death.label, label)]
        if as_json:
            _print_lines(wanted)
        else:
            for death in wanted:
                console.print(" ".join(deaths_row(death)), highlight=False)
        if not deaths:
            # Somebody has died, but how will be known in a moment.
            time.sleep(_PAUSE)


def _settled(oversight: Oversight, last: int) -> list[r.Death]:
    """The next deaths, for which it waits, up to the first of which more will be known soon."""
    deaths = r.unpack_report(oversight.report(t.REPORT_NEXT_DEATHS, after=last), r.Deaths).deaths
    for index, death in enumerate(deaths):
        if not death.settled and time.time() - death.ended < _PATIENCE:
            return deaths[:index]
    return deaths


def _print_lines(records: list[r.Death] | list[r.Task] | list[r.Right]) -> None:
    for record in records:
        print(msgspec.json.encode(record).decode(), flush=True)


def deaths_table(deaths: list[r.Death]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("when", "task", "label", "what ended it", "lost", "told"):
        table.add_column(heading, overflow="fold")
    for death in deaths:
        table.add_row(*deaths_row(death))
    return table


def deaths_row(death: r.Death) -> tuple[str, ...]:
    lost = ", ".join([f"{count} {_LOST[what][count != 1]}" for what, count in death.lost.items() if count])
    caused = [f"{count} {kind.replace('_', '-')}" for kind, count in death.caused.items()]
    told = [_told(told) for told in death.told if told.label]
    return (
        time.strftime("%H:%M:%S", time.localtime(death.ended)),
        str(death.task),
        death.label,
        death.how,
        lost or "nothing",
        ", ".join(caused) + (f" ({'; '.join(told)})" if told else "") or "nobody",
    )


def _told(told: r.Told) -> str:
    port = told.port or (f"{told.name:#x}" if told.name else "a port")
    return f"{told.label} of {port}"


# Tasks


def show_tasks(oversight: Oversight, *, as_json: bool) -> None:
    """Print every task that lives, with what it holds; not the one that looks."""
    found = []
    for task in tasks(oversight):
        if task.label == oversight.label:
            continue
        # It may end meanwhile.
        with contextlib.suppress(DeadTask):
            found.append((task, holdings(oversight, task)))
    if as_json:
        for task, held in found:
            told = {**msgspec.to_builtins(task), **msgspec.to_builtins(held)}
            del told["next"]
            print(msgspec.json.encode(told).decode())
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("task", "label", "pid", "names", "ports", "queued", "bytes", "blocked", "threads", "since"):
        table.add_column(heading, justify="left" if heading in ("label", "since") else "right")
    table.add_column("executable", overflow="fold")
    for task, held in found:
        table.add_row(
            str(task.task),
            task.label,
            str(task.pid or ""),
            str(task.names),
            str(held.ports),
            str(held.messages),
            f"{'' if held.exact else '≥ '}{held.bytes}",
            str(task.blocked),
            str(task.threads),
            time.strftime("%H:%M:%S", time.localtime(task.began)) if task.began else "",
            task.executable,
        )
    new_console().print(table)


def tasks(oversight: Oversight) -> Iterator[r.Task]:
    """Every task that lives."""
    after, more = 0, True
    while more:
        answer = r.unpack_report(oversight.report(t.REPORT_TASKS, after=after), r.Tasks)
        more = answer.more
        for task in answer.tasks:
            after = task.task
            yield task


def holdings(oversight: Oversight, task: r.Task) -> r.Holdings:
    """What a task holds, added up over as many answers as it takes."""
    total = r.Holdings(0, 0, 0, 0, True)
    for answer in _pages(lambda at: _report(oversight, t.REPORT_HOLDINGS, r.Holdings, task.task, at)):
        total.ports += answer.ports
        total.messages += answer.messages
        total.bytes += answer.bytes
        total.exact &= answer.exact
    return total


def _report(oversight: Oversight, kind: int, form: type[r.Page], task: int, at: int) -> r.Page:
    try:
        return r.unpack_report(oversight.report(kind, task, at), form)
    except MachError as error:
        if error.code == c.KERN_INVALID_TASK:
            raise DeadTask("the task has ended") from None
        raise


def _pages(page: Callable[[int], r.Page]) -> Iterator[r.Page]:
    at = 0
    while True:
        answer = page(at)
        yield answer
        at = answer.next
        if not at:
            return


def show_rights(oversight: Oversight, pid: int, *, as_json: bool) -> bool:
    """Print what the tasks of a process hold, and who has the ports; False if it has none."""
    found = False
    for task in tasks(oversight):
        if task.pid != pid:
            continue
        found = True
        table = Table(box=None, pad_edge=False, title=f"task {task.task}, {task.label}", title_justify="left")
        for heading in ("name", "kind", "refs", "port", "received by", "queued", "bytes"):
            table.add_column(heading, justify="right" if heading in ("name", "refs", "queued", "bytes") else "left")
        for answer in _pages(lambda at, task=task: _report(oversight, t.REPORT_RIGHTS, r.Rights, task.task, at)):  # type: ignore[misc]
            if as_json:
                _print_lines(answer.rights)
            for right in answer.rights:
                receives = right.kind & c.MACH_PORT_TYPE_RECEIVE
                table.add_row(
                    f"{right.name:#x}",
                    "+".join([name for bit, name in _KINDS if right.kind & bit]),
                    str(right.refs),
                    right.label,
                    "itself" if right.holder_task == task.task else right.holder,
                    str(right.messages) if receives else "",
                    f"{'' if right.exact else '≥ '}{right.bytes}" if receives else "",
                )
        if not as_json:
            new_console().print(table)
    return found
