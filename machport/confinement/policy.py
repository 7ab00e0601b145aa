"""What a confined child may do beside using its rights, as its parent says it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from machport.abi.errors import InvalidArgument

StrPath = str | os.PathLike[str]

#: What programs are made of: shared libraries, and what the C library and Python look up.
_SYSTEM: Final = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/usr/share/locale",
    "/dev/urandom",
)
#: Whoever may use the network has to find names and to check certificates.
_NETWORK: Final = (
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/services",
    "/etc/protocols",
    "/etc/ssl",
    "/etc/pki",
    "/usr/share/ca-certificates",
)


@dataclass(frozen=True)
class Confinement:
    """What a spawned child may reach beside its rights; by default as little as Python can run with.

    Everything else is refused by the system, with ``PermissionError``, in the child and in all that it starts: to open
    other files, to make sockets, to signal or trace other processes, to change modes or owners of files, and to have
    privileges, also of root.

    Attributes:
        read: files that it may read, and directories with all below.
        write: files and directories that it may also write to and, below directories, make and remove.
        execute: programs that it may start.  The program of ``spawn([...])`` itself needs no mention.
        network: it may use IPv4 and IPv6.
        python: it may read what this Python and its modules are made of: its installation and ``sys.path``.  Functions
            need it.
        best_effort: be content with what this system can enforce, be it nothing, instead of refusing.
    """

    read: Sequence[StrPath] = ()
    write: Sequence[StrPath] = ()
    execute: Sequence[StrPath] = ()
    network: bool = False
    python: bool = True
    best_effort: bool = False

    def resolved(self) -> dict[str, Any]:
        """The same for another process, with every path that it means: keywords of ``applying.apply``.

        Raises:
            InvalidArgument: a path is not there, or is no path.
        """
        return {
            "read": [*_checked(self.read, "read"), *self._implied()],
            "write": _checked(self.write, "write"),
            "execute": _checked(self.execute, "execute"),
            "network": bool(self.network),
            "best_effort": bool(self.best_effort),
        }

    def _implied(self) -> Iterator[str]:
        paths: list[str] = [*_SYSTEM, *(_NETWORK if self.network else ())]
        if self.python:
            for prefix in (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix):
                paths += [f"{prefix}/lib", f"{prefix}/lib64"]
            paths += [f"{sys.prefix}/pyvenv.cfg", *(path or os.getcwd() for path in sys.path)]
        for path in dict.fromkeys(map(os.path.abspath, paths)):
            if os.path.exists(path):
                yield path


def _checked(paths: Iterable[StrPath], what: str) -> list[str]:
    if isinstance(paths, str | bytes | os.PathLike):
        raise InvalidArgument(f"{what}= of a Confinement is a list of paths, not {paths!r}", call="spawn")
    found = []
    for path in paths:
        try:
            resolved = Path(path).absolute()
            resolved.stat()
        except (OSError, TypeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a path"
            raise InvalidArgument(f"{what}= of a Confinement has {path!r}: {reason}", call="spawn") from None
        found.append(str(resolved))
    return found
