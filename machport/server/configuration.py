"""The daemon's settings: a TOML file with limits for tasks, for tasks by their labels, and for the daemon itself."""

from __future__ import annotations

import os
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, NamedTuple

from machport.abi.errors import InvalidArgument
from machport.abi.limits import LIMIT_MAX, Limits

#: What a task may have that nobody says more about; an honest program meets none of these.
DEFAULTS: Final = Limits(
    names=1 << 20,
    messages=1 << 20,
    bytes=256 << 20,
    sending=256 << 20,
    waiters=1 << 17,
    threads=4096,
    memory=512 << 20,
    descriptors=16384,
    children=16384,
)


class DaemonLimits(NamedTuple):
    """What the daemon allows all its clients together.

    Attributes:
        connections: tasks that processes have joined; 0, the default, for a third of the descriptors there are.
        connections_per_process: of one process; 0, the default, for 1024, or a quarter of ``connections`` if that is
            less.
        connections_per_second: of all processes; half a second's may come at once, and the others wait.
        silent: connections that have not said hello.
        silent_per_process: of one process.
        hello_seconds: how long one may take to say it.
        memory: bytes of the daemon's own; beyond them the largest holders get no more.  0, the default, for half of
            what the system or a limit allows.
        services: names at the bootstrap service; with 0 nobody may have one.
        services_per_process: of those, names that one process has taken; with 0 it may have none.
    """

    connections: int = 0
    connections_per_process: int = 0
    connections_per_second: int = 500
    silent: int = 256
    silent_per_process: int = 32
    hello_seconds: int = 10
    memory: int = 0
    services: int = 65536
    services_per_process: int = 4096


#: With 0 of these nobody could come in.
_AT_LEAST_ONE: Final = frozenset({"connections_per_second", "silent", "silent_per_process", "hello_seconds"})


class Configuration(NamedTuple):
    """All settings.

    Attributes:
        task: limits of every task.
        tasks: limits of tasks whose labels fit a pattern, which has ``*``, ``?`` and ``[...]``; the first that fits.
        daemon: those of the daemon itself.
    """

    task: Limits = DEFAULTS
    tasks: tuple[tuple[str, Limits], ...] = ()
    daemon: DaemonLimits = DaemonLimits()

    def limits_of(self, label: str) -> Limits:
        """The limits of a task with this label, which is without its process number."""
        for pattern, limits in self.tasks:
            if fnmatchcase(label, pattern):
                return limits.over(self.task)
        return self.task


def default_path() -> Path:
    """Where the settings are unless another file is named."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home, "machport", "daemon.toml")


def read(path: Path | None) -> Configuration:
    """The settings of a file; the defaults if none is named and there is none at the usual place.

    Raises:
        InvalidArgument: the file cannot be read, or says what it may not; the text has the key and what is allowed.
    """
    try:
        if path is None:
            path = default_path()
            if not os.path.exists(path):
                return Configuration()
        return parse(path.read_text())
    except (OSError, RuntimeError) as error:
        raise InvalidArgument(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{path} is not TOML: {error}") from None
    except InvalidArgument as error:
        raise InvalidArgument(f"{path}: {error.says}") from None


def parse(text: str) -> Configuration:
    """The settings in a text.  Raises as ``read``, or ``tomllib.TOMLDecodeError``."""
    found = _table(tomllib.loads(text), "", ("daemon", "task", "tasks"))
    task = Limits(**_numbers(found.get("task", {}), "task", Limits._fields))
    patterns = found.get("tasks", {})
    if not isinstance(patterns, dict):
        raise InvalidArgument('tasks has tables, as [tasks."render*"]')
    tasks = tuple(
        (pattern, Limits(**_numbers(limits, f'tasks."{pattern}"', Limits._fields)))
        for pattern, limits in patterns.items()
    )
    daemon = DaemonLimits(**_numbers(found.get("daemon", {}), "daemon", DaemonLimits._fields, _AT_LEAST_ONE))
    return Configuration(task.over(DEFAULTS), tasks, daemon)


def _numbers(
    found: Any, where: str, allowed: tuple[str, ...], at_least_one: frozenset[str] = frozenset()
) -> dict[str, int]:
    for key, value in _table(found, where, allowed).items():
        least = 1 if key in at_least_one else 0
        if type(value) is not int or not least <= value <= LIMIT_MAX:
            raise InvalidArgument(f"{where}.{key} is a number from {least} to {LIMIT_MAX}, not {value!r}")
    numbers: dict[str, int] = found
    return numbers


def _table(found: Any, where: str, allowed: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise InvalidArgument(f"{where} is a table, as [{where}], not {found!r}")
    for key in found:
        if key not in allowed:
            raise InvalidArgument(f"{f'{where}.{key}' if where else key} is not known; there are {', '.join(allowed)}")
    return found
