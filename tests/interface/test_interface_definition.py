"""A class with type hints is an interface, or is refused where it is defined or first used."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any, Literal, NewType, Optional, Protocol

import msgspec
import numpy as np
import pytest
from interface_actors import Calculator, Divider

import machport
from machport.interfaces import definition, naming
from machport.interfaces.definition import interface_of


class Plain:
    pass


class Record(msgspec.Struct):
    plain: Plain


def routine(function: Any) -> definition.Routine:
    """The routine of an interface that has just this method."""
    described = type("Described", (), {"routine": function})
    return interface_of(described).routines["routine"]


def refused(function: Any) -> str:
    """Why a method cannot be a routine."""
    with pytest.raises(machport.InvalidInterface) as caught:
        routine(function)
    return caught.value.says


# Hints and signatures


def test_a_parameter_without_a_hint_is_refused() -> None:
    def bare(self: object, a: int, b) -> None: ...  # type: ignore[no-untyped-def]

    assert "no type hint for b" in refused(bare)


def test_a_result_without_a_hint_is_refused() -> None:
    def bare(self: object, a: int): ...  # type: ignore[no-untyped-def]

    assert "write -> None" in refused(bare)


def test_variable_arguments_are_refused() -> None:
    def many(self: object, *args: int) -> None: ...
    def named(self: object, **kwargs: int) -> None: ...

    assert "*args" in refused(many)
    assert "**kwargs" in refused(named)


def test_a_function_without_self_is_refused() -> None:
    def nothing() -> None: ...
    def keyword(*, a: int) -> None: ...

    assert "no self" in refused(nothing)
    assert "no self" in refused(keyword)


def test_hints_without_a_form_in_messages_are_refused() -> None:
    def plain(self: object, a: Plain) -> None: ...
    def inside(self: object, a: list[dict[str, Record]]) -> None: ...
    def called(self: object, a: Callable[[int], int]) -> None: ...
    def two(self: object, a: machport.SendRight | int) -> None: ...
    def ambiguous(self: object, a: list[int] | tuple[int, ...]) -> None: ...
    def port_set(self: object, a: machport.PortSet) -> None: ...
    def result(self: object) -> Plain: ...  # type: ignore[empty-body]

    assert "an argument of Described.routine: values of class Plain" in refused(plain)
    assert "values of class Plain" in refused(inside)
    for function in (called, two, ambiguous, port_set):
        assert "cannot go into a message" in refused(function)
    assert "the result of Described.routine" in refused(result)


def test_a_hint_that_names_nothing_is_refused() -> None:
    def unknown(self: object, a: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    assert "TYPE_CHECKING" in refused(unknown)


def test_generators_are_refused() -> None:
    def steps(self: object) -> list[int]:  # type: ignore[misc]
        yield 1

    assert "generator" in refused(steps)


def test_properties_and_static_methods_are_refused() -> None:
    for value in (property(lambda self: 1), staticmethod(lambda: 1), classmethod(lambda cls: 1)):
        with pytest.raises(machport.InvalidInterface, match="methods and constants"):
            interface_of(type("Described", (), {"routine": value}))


def test_what_is_no_class_or_describes_no_calls_is_refused() -> None:
    for described in (Calculator(), 3, Plain, int, routine):
        with pytest.raises(machport.InvalidInterface):
            interface_of(described)


def test_routines_of_both_kinds_are_refused() -> None:
    def one(self: object) -> None: ...
    async def other(self: object) -> None: ...

    with pytest.raises(machport.InvalidInterface, match="both kinds"):
        interface_of(type("Described", (), {"one": one, "other": other}))


def test_a_one_way_routine_returns_nothing() -> None:
    @machport.oneway
    def note(self: object) -> int: ...  # type: ignore[empty-body]

    assert "one-way" in refused(note)
    with pytest.raises(machport.InvalidInterface):
        machport.oneway(3)  # type: ignore[type-var]


def test_private_methods_and_constants_are_no_routines() -> None:
    class Described(Calculator):
        LIMIT = 3

        def _private(self, anything) -> None: ...  # type: ignore[no-untyped-def]

    assert list(interface_of(Described).routines) == ["divide", "note", "notes", "total"]


def test_a_protocol_is_read_as_a_plain_class() -> None:
    class Described(Protocol):
        def divide(self, a: float, b: float) -> float: ...

    assert list(interface_of(Described).routines) == ["divide"]


# What is said by the decorator


@pytest.mark.parametrize("name", ["", 3, "two\nlines"])
def test_a_name_is_a_line_of_text(name: Any) -> None:
    with pytest.raises(machport.InvalidInterface, match="name"):
        machport.interface(name=name)(type("Described", (Calculator,), {}))


@pytest.mark.parametrize("version", [1, "1.0", (1,), (1, 2, 3), (1, -1), (1.0, 2), (True, 1), (1 << 31, 0)])
def test_a_version_is_two_numbers(version: Any) -> None:
    with pytest.raises(machport.InvalidInterface, match="version"):
        machport.interface(version=version)(type("Described", (Calculator,), {}))


@pytest.mark.parametrize("errors", [ValueError, (3,), (KeyboardInterrupt,), (machport.TimedOut,), (KeyError, KeyError)])
def test_errors_are_classes_of_exceptions_that_are_not_of_ones_own_calls(errors: Any) -> None:
    with pytest.raises(machport.InvalidInterface, match=r"error|not travel"):
        machport.interface(errors=errors)(type("Described", (Calculator,), {}))


def test_the_decorator_refuses_at_the_definition() -> None:
    with pytest.raises(machport.InvalidInterface, match="no type hint"):

        @machport.interface(name="org.example.bad")
        class Bad:
            def call(self, a) -> None: ...  # type: ignore[no-untyped-def]


def test_a_subclass_of_an_interface_has_a_name_of_its_own() -> None:
    @machport.interface(name="org.example.first", version=(3, 4))
    class First(Calculator):
        pass

    class Second(First):
        pass

    assert (interface_of(First).title, interface_of(Second).version) == ("org.example.first 3.4", (1, 0))
    assert interface_of(Second).name.endswith("Second")


# Ids


def test_an_id_comes_from_name_major_routine_and_signature() -> None:
    def base(self: object, a: int) -> str: ...  # type: ignore[empty-body]
    def same(self: object, a: int = 3) -> str: ...  # type: ignore[empty-body]
    def renamed(self: object, b: int) -> str: ...  # type: ignore[empty-body]
    def retyped(self: object, a: float) -> str: ...  # type: ignore[empty-body]
    def keyword(self: object, *, a: int) -> str: ...  # type: ignore[empty-body]
    def other(self: object, a: int) -> bytes: ...  # type: ignore[empty-body]
    def nothing(self: object, a: int) -> None: ...
    @machport.oneway
    def oneway(self: object, a: int) -> None: ...

    def number(function: Any, name: str = "x", version: tuple[int, int] = (1, 0), routine: str = "routine") -> int:
        described = machport.interface(name=name, version=version)(type("Described", (), {routine: function}))
        return interface_of(described).routines[routine].id

    assert number(base) == number(same) == number(base, version=(1, 7))
    others = [number(function) for function in (renamed, retyped, keyword, other, nothing, oneway)]
    others += [number(base, name="y"), number(base, version=(2, 0)), number(base, routine="other")]
    assert len({number(base), *others}) == 10


def test_ids_have_31_bits_and_are_never_those_of_notifications() -> None:
    ids = [naming.message_id(str(number)) for number in range(10_000)]
    assert min(ids) >= 0x1000
    assert max(ids) + naming.REPLY < 1 << 31
    assert len(set(ids)) > 9_990


def test_two_routines_with_one_id_are_refused() -> None:
    one, other = (interface_of(Calculator).routines[name] for name in ("divide", "total"))
    number, other.id = other.id, one.id
    try:
        with pytest.raises(machport.InvalidInterface, match="rename"):
            definition.refuse_collisions([one, other])
        other.id = naming.DESCRIBE
        with pytest.raises(machport.InvalidInterface, match="rename"):
            definition.refuse_collisions([one, other])
    finally:
        other.id = number


def test_hints_are_spelled_alike_however_they_are_written() -> None:
    number = NewType("number", int)
    for hint, text in [
        (Optional[int], "None | int"),  # noqa: UP045
        (None | int | str, "None | int | str"),
        (dict[str, list[Record]], "dict[str, list[Record]]"),
        (tuple[int, ...], "tuple[int, ...]"),
        (Literal["a", 1], "Literal['a', 1]"),
        (number, "int"),
        (Callable[[int], str], "Callable[[int], str]"),
        (np.ndarray, "ndarray"),
        (Any, "Any"),
    ]:
        assert naming.spelled(hint) == text
    from typing import Annotated

    assert naming.spelled(Annotated[int, msgspec.Meta(ge=0)]).startswith("Annotated[int, ")


# Implementations


def implementation(**methods: Any) -> object:
    return type("Implementation", (Divider,), methods)()


def test_an_implementation_that_lacks_a_method_is_refused_before_serving(task: machport.Task) -> None:
    class Inherited(Calculator):
        pass

    with task.allocate() as port:
        for lacking in (object(), Inherited(), implementation(divide=None)):
            with pytest.raises(machport.InvalidInterface, match=r"divide\(a: float, b: float\) -> float"):
                machport.serve(Calculator, lacking, port)


def test_an_implementation_with_other_arguments_is_refused_before_serving(task: machport.Task) -> None:
    async def coroutine(self: object, a: float, b: float) -> float:
        return 1

    with task.allocate() as port:
        for method, says in [
            (lambda self, a: 1, "cannot be called"),
            (lambda self, a, b, c: 1, "cannot be called"),
            (lambda self, *, a, b: 1, "cannot be called"),
            (lambda self, b, a: 1, "calls b what"),
            (coroutine, "must be a function"),
        ]:
            with pytest.raises(machport.InvalidInterface, match=says):
                machport.serve(Calculator, implementation(divide=method), port)


def test_an_implementation_may_take_more_than_it_is_given() -> None:
    for method in (lambda self, *args: 1, lambda self, x, y, /: 1, lambda self, a, b, c=3: 1):
        from machport.interfaces.serving import checked_method

        read = interface_of(Calculator)
        assert checked_method(read, read.routines["divide"], implementation(divide=method))(1, 2) == 1


def test_coroutines_need_the_asynchronous_face(task: machport.Task) -> None:
    class Described:
        async def call(self) -> None: ...

    with task.allocate() as port, port.make_send() as right:
        with pytest.raises(machport.InvalidInterface, match=r"interface\(of=Described\)"):
            machport.proxy(Described, right)
        with pytest.raises(machport.InvalidInterface, match=r"interface\(of=Described\)"):
            machport.serve(Described, Described(), port)


# Twins


def test_a_twin_has_the_same_ids_and_the_other_kind_of_routines() -> None:
    @machport.interface(name="org.example.twin", version=(2, 1), errors=(KeyError,))
    class Original:
        def call(self, a: int = 3) -> str:
            raise NotImplementedError

    @machport.interface(of=Original)
    class Twin:
        async def call(self, a: int = 3) -> str:
            raise NotImplementedError

    original, twin = interface_of(Original), interface_of(Twin)
    assert (twin.title, twin.errors) == ("org.example.twin 2.1", {"KeyError": KeyError})
    assert twin.routines["call"].id == original.routines["call"].id
    assert twin.coroutines


def test_a_twin_that_drifted_is_refused_where_it_is_defined() -> None:
    async def divide(self: object, a: float, b: int) -> float: ...  # type: ignore[empty-body]
    async def other(self: object) -> None: ...
    async def total(self: object, *, first: int, second: int) -> int: ...  # type: ignore[empty-body]
    @machport.oneway
    async def note(self: object, text: str) -> None: ...
    async def notes(self: object) -> list[str]: ...  # type: ignore[empty-body]

    good: dict[str, Any] = {"total": total, "note": note, "notes": notes}
    for methods in (good, {**good, "divide": divide}, {**good, "other": other}):
        with pytest.raises(machport.InvalidInterface, match="is not the twin"):
            machport.interface(of=Calculator)(type("Twin", (), methods))
    with pytest.raises(machport.InvalidInterface, match="both have def"):
        machport.interface(of=Calculator)(type("Twin", (Calculator,), {}))
    with pytest.raises(machport.InvalidInterface, match="leave them away"):
        machport.interface(of=Calculator, name="other")(type("Twin", (), good))


# Imports


def test_the_package_loads_neither_msgspec_nor_numpy_until_an_interface_asks_for_them() -> None:
    source = """
import sys, machport
assert not {"msgspec", "numpy", "machport.interfaces"} & set(sys.modules)
class Described:
    def call(self, a: int, b: machport.SendRight) -> list[bytes]: ...
machport.interface()(Described)
assert "msgspec" in sys.modules and "numpy" not in sys.modules
import inspect
assert callable(machport.interface) and callable(machport.deadline) and "serve" in dir(machport)
"""
    subprocess.run([sys.executable, "-c", source], check=True, timeout=60)
