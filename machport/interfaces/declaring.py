"""What a class says about itself as an interface, besides its methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from machport.abi.errors import InvalidInterface
from machport.interfaces.definition import ONE_WAY, declare

_Class = TypeVar("_Class")
_Routine = TypeVar("_Routine", bound=Callable[..., Any])


def interface(
    *,
    name: str | None = None,
    version: tuple[int, int] = (1, 0),
    errors: Sequence[type[Exception]] = (),
    of: type | None = None,
) -> Callable[[_Class], _Class]:
    """Say more about a class that describes an interface, and check at once that it is one.

    Args:
        name: what both sides call it; the class's qualified name by default.
        version: major and minor. Sides with the same major understand each other as far as both know a routine.
        errors: exceptions of routines that arrive as what they are, besides the builtin ones.
        of: the interface of which this is the asynchronous twin, or the other way round: the same routines, ``async
            def`` instead of ``def``. Name, version and errors are its.

    Raises:
        InvalidInterface: the class is none, or is not the twin of ``of``.
    """

    def decorate(described: _Class) -> _Class:
        declare(described, name=name, version=version, errors=errors, of=of)
        return described

    return decorate


def oneway(routine: _Routine) -> _Routine:
    """A routine that nobody waits for: a call returns when the request is queued, and brings nothing back.

    Whatever goes wrong with it at the server goes into the server's log.
    """
    if not callable(routine):
        raise InvalidInterface(f"oneway decorates a method, not {routine!r}")
    setattr(routine, ONE_WAY, True)
    return routine
