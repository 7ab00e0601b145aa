"""A class with type hints, read as the definition of an interface and checked."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Sequence
from inspect import Parameter
from typing import Any, Final

from machport.abi.errors import BadArguments, InvalidInterface, MachError
from machport.interfaces.body import Body
from machport.interfaces.naming import DESCRIBE, message_id, spelled

#: Attribute of a method that nobody waits for.
ONE_WAY: Final = "__machport_oneway__"
_READ: Final = "__machport_interface__"
#: Where in the body of a request the decoder finds fault.
_PLACE: Final = re.compile(r"`\$\[(\d+)\]([^`]*)`")
_VARIABLE: Final = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
_POSITIONAL: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


class Routine:
    """One call of an interface.

    Attributes:
        id: ``msgh_id`` of its requests.
        text: its signature, from which the id comes.
        oneway: whether nobody waits for it.
        coroutine: whether it is written with ``async def``; the wire does not know.
        request, answer: the forms of the bodies.
        keywords: names of the last arguments, which are given by keyword.
    """

    def __init__(self, interface: str, major: int, name: str, function: Callable[..., Any], namespace: Any) -> None:
        self.name = name
        self.where = f"{interface}.{name}"
        self.function = function
        self.oneway = bool(getattr(function, ONE_WAY, False))
        self.coroutine = inspect.iscoroutinefunction(function)
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise InvalidInterface(f"{self.where} is a generator, which cannot be called through a port")
        parameters = list(inspect.signature(function).parameters.values())
        if not parameters or parameters[0].kind not in _POSITIONAL:
            raise InvalidInterface(f"{self.where} has no self, so it is no method")
        self.parameters = parameters[1:]
        self.signature = inspect.Signature(self.parameters)
        hints = self._hints(namespace)
        kinds = [self._hint_of(parameter, hints) for parameter in self.parameters]
        if "return" not in hints:
            raise InvalidInterface(f"{self.where} has no hint for what it returns; if that is nothing, write -> None")
        result = hints["return"]
        if self.oneway and result is not type(None):
            raise InvalidInterface(f"{self.where} is one-way, and so returns None, not {spelled(result)}")
        self.request = self._body(kinds, "an argument")
        self.answer = self._body([result], "the result")
        self.keywords = tuple(p.name for p in self.parameters if p.kind is Parameter.KEYWORD_ONLY)
        self.positional = len(self.parameters) - len(self.keywords)
        spelled_parameters = [
            f"{'*' if parameter.name in self.keywords else ''}{parameter.name}: {spelled(kind)}"
            for parameter, kind in zip(self.parameters, kinds, strict=True)
        ]
        arrow = "oneway" if self.oneway else spelled(result)
        self.text = f"{name}({', '.join(spelled_parameters)}) -> {arrow}"
        self.id = message_id(interface, str(major), self.text)

    def _hints(self, namespace: Any) -> dict[str, Any]:
        try:
            return typing.get_type_hints(self.function, localns=namespace, include_extras=True)
        except Exception as error:
            raise InvalidInterface(
                f"the hints of {self.where} cannot be read: {error}; what they name must be there at run time, not "
                "only under TYPE_CHECKING, and before the interface"
            ) from None

    def _hint_of(self, parameter: Parameter, hints: dict[str, Any]) -> Any:
        if parameter.kind in _VARIABLE:
            raise InvalidInterface(f"{self.where} takes {parameter}: say by name and type what it takes")
        if parameter.name not in hints:
            raise InvalidInterface(f"{self.where} has no type hint for {parameter.name}")
        return hints[parameter.name]

    def _body(self, hints: Sequence[Any], what: str) -> Body:
        try:
            return Body(hints)
        except InvalidInterface as error:
            raise InvalidInterface(f"{what} of {self.where}: {error.says}") from None

    def bind(self, arguments: Sequence[Any], keywords: dict[str, Any]) -> tuple[Any, ...]:
        """The arguments of a call in the order of the parameters, with defaults.

        Raises:
            BadArguments: they are too many, too few, or others.
        """
        try:
            bound = self.signature.bind(*arguments, **keywords)
        except TypeError as error:
            raise self.bad_arguments(str(error)) from None
        bound.apply_defaults()
        return tuple(bound.arguments.values())

    def bad_arguments(self, text: str) -> BadArguments:
        return BadArguments(f"nothing was sent: {self.located(text)}", call=self.where)

    def located(self, text: str) -> str:
        """What the decoder says, with the argument's name instead of its place."""
        names = ["deadline", *self.signature.parameters]
        return _PLACE.sub(lambda found: f"`{names[int(found[1])]}{found[2]}`", text)


class Interface:
    """What a class describes.

    Attributes:
        name: what both sides call it.
        version: major and minor.
        errors: exceptions that arrive as what they are, by the names that travel.
        routines: its calls by their names.
        coroutines: whether its routines are written with ``async def``.
    """

    def __init__(
        self, described: type, name: str | None, version: tuple[int, int], errors: Sequence[type[Exception]]
    ) -> None:
        self.described = described
        self.name = described.__qualname__ if name is None else name
        self.version = version
        self.errors = {error.__qualname__: error for error in errors}
        if len(self.errors) != len(errors):
            raise InvalidInterface(f"two errors of {self.name} have the same name")
        namespace = dict(vars(described))
        self.routines = {
            name: Routine(self.name, version[0], name, function, namespace)
            for name, function in _methods(self.name, described).items()
        }
        if not self.routines:
            raise InvalidInterface(f"{described.__qualname__} has no public methods, so it describes no calls")
        self.coroutines = next(iter(self.routines.values())).coroutine
        for routine in self.routines.values():
            if routine.coroutine != self.coroutines:
                raise InvalidInterface(
                    f"{self.name} has routines of both kinds: write all with def, or all with async def, and have "
                    "the twin by machport.interface(of=...)"
                )
        refuse_collisions(self.routines.values())

    @property
    def title(self) -> str:
        """Name and version as text."""
        return title(self.name, *self.version)


def title(name: str, major: int, minor: int) -> str:
    return f"{name} {major}.{minor}"


def refuse_collisions(routines: typing.Iterable[Routine]) -> None:
    """Ids are short, so two routines may come to have the same.

    Raises:
        InvalidInterface: they do.
    """
    ids: dict[int, str] = {DESCRIBE: "the question which interface this is"}
    for routine in routines:
        other = ids.setdefault(routine.id, routine.text)
        if other is not routine.text:
            raise InvalidInterface(f"the ids of {routine.where} and of {other} are the same; rename a parameter")


def declare(
    described: Any,
    *,
    name: str | None,
    version: tuple[int, int],
    errors: Sequence[type[Exception]],
    of: type | None,
) -> None:
    """Read a class with what was said about it."""
    _check_class(described)
    if of is not None:
        original = interface_of(of)
        if name is not None or version != (1, 0) or errors:
            raise InvalidInterface(
                f"{described.__qualname__} has name, version and errors of {original.name}; leave them away"
            )
        read = Interface(described, original.name, original.version, list(original.errors.values()))
        _compare(read, original)
    else:
        read = Interface(described, _checked_name(name), _checked_version(version), _checked_errors(errors))
    setattr(described, _READ, read)


def interface_of(described: Any) -> Interface:
    """What a class describes; it is read once.

    Raises:
        InvalidInterface: it describes no interface.
    """
    _check_class(described)
    read = vars(described).get(_READ)
    if read is None:
        declare(described, name=None, version=(1, 0), errors=(), of=None)
        read = vars(described)[_READ]
    assert isinstance(read, Interface)
    return read


def check_face(read: Interface, awaits: bool, what: str) -> None:
    """Whether the routines of an interface wait as a right does.

    Raises:
        InvalidInterface: they do not, or their hints are for rights that do not.
    """
    if read.coroutines != awaits:
        kinds = ("coroutines", "machport.aio", "def instead of async def")
        if awaits:
            kinds = ("no coroutines", "machport.Task", "async def instead of def")
        raise InvalidInterface(
            f"the routines of {read.name} are {kinds[0]}, which need a {what} of {kinds[1]}; for this {what} declare "
            f"the twin, with {kinds[2]}, by @machport.interface(of={read.described.__name__}). In a process that spawn "
            "started, rights are to be awaited if its function is a coroutine function, and are ordinary ones otherwise"
        )
    for routine in read.routines.values():
        for kind in routine.request.waiting | routine.answer.waiting:
            if (kind.__module__ == "machport.aio.rights") != awaits:
                module = "machport.aio" if awaits else "machport"
                raise InvalidInterface(
                    f"the hints of {routine.where} must say {module}.{kind.__name__}, as its rights wait"
                )


def _check_class(described: Any) -> None:
    if not isinstance(described, type):
        raise InvalidInterface(f"an interface is described by a class, not by {described!r}")
    if described.__module__ == "builtins":
        raise InvalidInterface(f"{described.__name__} describes no interface")


def _checked_name(name: str | None) -> str | None:
    if name is None or (isinstance(name, str) and name and "\n" not in name):
        return name
    raise InvalidInterface(f"the name of an interface is a line of text, not {name!r}")


def _checked_version(version: Any) -> tuple[int, int]:
    if (
        isinstance(version, tuple)
        and len(version) == 2
        and all(type(part) is int and 0 <= part < 1 << 31 for part in version)
    ):
        return version
    raise InvalidInterface(f"a version is (major, minor), not {version!r}")


def _checked_errors(errors: Any) -> tuple[type[Exception], ...]:
    try:
        given = tuple(errors)
    except TypeError:
        raise InvalidInterface(f"errors=(...) has classes of exceptions, and is not {errors!r}") from None
    for error in given:
        if not (isinstance(error, type) and issubclass(error, Exception)):
            raise InvalidInterface(f"errors=(...) has classes of exceptions, not {error!r}")
        if issubclass(error, MachError):
            raise InvalidInterface(
                f"{error.__name__} says what became of one's own calls, so it does not travel; raise your own"
            )
    return given


def _methods(interface: str, described: type) -> dict[str, Callable[..., Any]]:
    """Public methods of a class and those that it inherits."""
    found: dict[str, Callable[..., Any]] = {}
    for kind in reversed(described.__mro__[:-1]):
        if kind.__module__ in ("typing", "abc"):
            continue
        for name, value in vars(kind).items():
            if name.startswith("_"):
                continue
            found.pop(name, None)
            if isinstance(value, property | staticmethod | classmethod):
                raise InvalidInterface(
                    f"{interface}.{name} is a {type(value).__name__}; an interface has methods and constants"
                )
            if inspect.isfunction(value):
                found[name] = value
    return dict(sorted(found.items()))


def _compare(twin: Interface, original: Interface) -> None:
    if twin.coroutines == original.coroutines:
        kind = "async def" if twin.coroutines else "def"
        raise InvalidInterface(f"{twin.described.__qualname__} is no twin of {original.name}: both have {kind}")
    for name in sorted({*twin.routines, *original.routines}):
        here, there = twin.routines.get(name), original.routines.get(name)
        if here is None or there is None or here.text != there.text:
            raise InvalidInterface(
                f"{twin.described.__qualname__} is not the twin of {original.name}: it has "
                f"{here.text if here else f'no {name}'}, and the original {there.text if there else f'no {name}'}"
            )
