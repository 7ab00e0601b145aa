"""Typed calls: what goes in comes out as the hints say, and what does not fit is refused where it came from."""

from __future__ import annotations

import datetime
import enum
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any, NamedTuple, TypedDict
from uuid import UUID

import msgspec
import pytest
from actors import PATIENCE
from interface_actors import Calculator, Divider, Served, nothing_left

import machport


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Point(msgspec.Struct):
    x: int
    y: int = 0


class Circle(msgspec.Struct, tag=True):
    radius: float


class Square(msgspec.Struct, tag=True):
    side: float


@dataclass
class Order:
    number: int
    lines: list[Point] = field(default_factory=list)


class Pair(NamedTuple):
    first: int
    second: str


class Options(TypedDict, total=False):
    depth: int


class Echo:
    """Gives back what it gets."""

    def struct(self, value: Point) -> Point:
        return value

    def dataclass(self, value: Order) -> Order:
        return value

    def color(self, value: Color) -> Color:
        return value

    def moment(self, value: datetime.datetime) -> datetime.datetime:
        return value

    def union(self, value: Circle | Square | None) -> Circle | Square | None:
        return value

    def nested(self, value: dict[str, list[tuple[int, str]]]) -> dict[str, list[tuple[int, str]]]:
        return value

    def several(
        self, value: tuple[Pair, Options, UUID, Decimal, set[int], frozenset[str]]
    ) -> tuple[Pair, Options, UUID, Decimal, set[int], frozenset[str]]:
        return value

    def data(self, value: bytes) -> bytes:
        return value

    def constrained(self, value: Annotated[int, msgspec.Meta(ge=0)]) -> Annotated[int, msgspec.Meta(ge=0)]:
        return value

    def whatever(self, value: Any) -> Any:
        return value

    def parameters(self, a: int, /, b: str = "b", *, c: float = 1.5, d: list[int] | None = None) -> list[Any]:
        return [a, b, c, d]

    def wrong(self, value: Any) -> int:
        return value  # type: ignore[no-any-return]

    def long(self, size: int) -> bytes:
        return bytes(size)

    def long_or_right(self, size: int) -> tuple[bytes, machport.SendRight | None]:
        return bytes(size), None

    def nothing(self) -> None:
        return None


VALUES: list[tuple[str, Any]] = [
    ("struct", Point(1, -(2**63))),
    ("dataclass", Order(7, [Point(1), Point(2, 3)])),
    ("color", Color.BLUE),
    ("moment", datetime.datetime(2026, 11, 22, 9, 30, tzinfo=datetime.UTC)),
    ("union", Square(2.0)),
    ("union", None),
    ("nested", {"a": [(1, "x")], "": []}),
    ("several", (Pair(1, "p"), {"depth": 3}, UUID(int=5), Decimal("1.10"), {1, 2}, frozenset({"s"}))),
    ("data", b""),
    ("data", bytes(range(256)) * 40_000),
    ("constrained", 0),
    ("whatever", {"a": [1, None, 2.5, b"x", True]}),
]


@pytest.fixture
def echo(task: machport.Task) -> Iterator[Echo]:
    with Served(task, Echo, Echo()) as served:
        yield machport.proxy(Echo, served.right, timeout=PATIENCE)


@pytest.fixture
def served(task: machport.Task) -> Iterator[Served]:
    with Served(task, Calculator, Divider()) as served:
        yield served


@pytest.fixture
def calculator(served: Served) -> Calculator:
    return machport.proxy(Calculator, served.right, timeout=PATIENCE)


def test_a_call_is_carried_out_by_the_object_that_serves(calculator: Calculator) -> None:
    assert calculator.divide(1, 2) == 0.5
    assert calculator.divide(b=2.0, a=1) == 0.5


def test_a_proxy_is_an_instance_of_its_interface_and_says_where_it_goes(calculator: Calculator) -> None:
    assert calculator.divide(1, 2) == 0.5
    assert isinstance(calculator, Calculator)
    assert repr(calculator).startswith("<proxy of Calculator 1.0 by <SendRight ")
    assert calculator.divide.__qualname__ == "Calculator.divide"


@pytest.mark.parametrize(("routine", "value"), VALUES)
def test_values_arrive_as_the_hints_say(echo: Echo, routine: str, value: Any) -> None:
    got = getattr(echo, routine)(value)
    assert got == value
    assert type(got) is type(value)


def test_defaults_and_keywords_are_those_of_the_interface(echo: Echo, calculator: Calculator) -> None:
    assert echo.parameters(1) == [1, "b", 1.5, None]
    assert echo.parameters(1, "x", d=[2]) == [1, "x", 1.5, [2]]
    assert echo.parameters(1, b="y", c=2) == [1, "y", 2.0, None]
    assert calculator.total(first=1) == 11
    assert calculator.total(second=2, first=1) == 3
    assert echo.nothing() is None  # type: ignore[func-returns-value]


# Refused at the caller


def test_arguments_that_do_not_fit_are_refused_and_nothing_is_sent(task: machport.Task) -> None:
    with task.allocate() as port, port.make_send() as right, nothing_left(task):
        echo: Any = machport.proxy(Echo, right)
        for routine, arguments, says in [
            ("struct", (3,), "Expected `object`, got `int` - at `value`"),
            ("struct", (Point("x"),), "Expected `int`, got `str` - at `value.x`"),  # type: ignore[arg-type]
            ("color", ("green",), "Invalid enum value 'green' - at `value`"),
            ("nested", ({"a": [(1, 2)]},), "Expected `str`, got `int` - at `value[...][0][1]`"),
            ("constrained", (-1,), "Expected `int` >= 0"),
            ("whatever", (object(),), "object"),
            ("whatever", (2**70,), "can't serialize"),
            ("whatever", ("\ud800",), "surrogates"),
            ("struct", (), "missing a required argument: 'value'"),
            ("struct", (Point(1), 2), "too many positional arguments"),
            ("parameters", (1, "b", 2.0), "too many positional arguments"),
        ]:
            with pytest.raises(machport.BadArguments) as caught:
                getattr(echo, routine)(*arguments)
            assert says in caught.value.says
            assert caught.value.says.startswith("nothing was sent: ")
        with pytest.raises(TypeError, match="unexpected keyword argument 'other'"):
            echo.struct(Point(1), other=2)
        with pytest.raises(TypeError, match="a"):
            echo.parameters(a=1)
        circular: list[Any] = []
        circular.append(circular)
        with pytest.raises(machport.BadArguments):
            echo.whatever(circular)
        assert port.status().msgcount == 0


def test_a_proxy_needs_a_send_right_and_seconds(task: machport.Task) -> None:
    with task.allocate() as port, port.make_send() as right:
        with pytest.raises(machport.InvalidArgument, match="SendRight"):
            machport.proxy(Calculator, port)  # type: ignore[arg-type]
        for timeout in (-1, "x", float("nan")):
            with pytest.raises(machport.InvalidArgument, match="deadline"):
                machport.proxy(Calculator, right, timeout=timeout)  # type: ignore[arg-type]
        closed = machport.proxy(Calculator, right.duplicate())
    with pytest.raises(machport.MachError):
        closed.divide(1, 2)


def test_a_class_that_cannot_be_made_has_no_proxy(task: machport.Task) -> None:
    import abc

    class Described(abc.ABC):
        @abc.abstractmethod
        def _hidden(self) -> None: ...

        def call(self) -> int:
            return 3

    with (
        task.allocate() as port,
        port.make_send() as right,
        pytest.raises(machport.InvalidInterface, match="no proxy"),
    ):
        machport.proxy(Described, right)


# Refused at the server


def test_a_result_that_does_not_fit_is_an_error_at_the_caller_and_the_server_goes_on(
    echo: Echo, caplog: pytest.LogCaptureFixture
) -> None:
    for value in ("text", None, [1]):
        with pytest.raises(machport.RemoteError, match=r"Echo\.wrong returned does not fit its hint") as caught:
            echo.wrong(value)
        assert caught.value.type_name == "InvalidInterface"
    assert echo.wrong(3) == 3
    assert [record.name for record in caplog.records] == ["machport.interface"] * 3


def test_what_is_too_long_for_a_message_is_an_error_and_the_server_goes_on(echo: Echo) -> None:
    with pytest.raises(machport.MessageTooLarge):
        echo.data(bytes(60_000_000))
    with pytest.raises(machport.RemoteError, match="more than a message's"):
        echo.long(60_000_000)
    with pytest.raises(machport.RemoteError, match="more than a message's"):
        echo.long_or_right(60_000_000)
    assert echo.data(bytes(40_000_000)) == bytes(40_000_000)


# One way


def test_a_one_way_call_returns_when_it_is_queued(task: machport.Task) -> None:
    with task.allocate(qlimit=10) as port, port.make_send() as right:
        calculator = machport.proxy(Calculator, right)
        server = Served(task, Calculator, Divider())
        with server:
            other = machport.proxy(Calculator, server.right)
            other.note("one")
            other.note("two")
            assert other.notes() == ["one", "two"]
        # Nobody serves this port, so only what asks nothing returns.
        calculator._machport_link.checked = True  # type: ignore[attr-defined]
        calculator.note("waits")
        assert port.status().msgcount == 1
        with port.receive(PATIENCE) as message:
            assert message.reply_right is None


def test_what_goes_wrong_one_way_is_in_the_log_of_the_server(
    calculator: Calculator, served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    from machport.interfaces.definition import interface_of

    calculator.note("bad")
    number = interface_of(Calculator).routines["note"].id
    served.right.send(b"nonsense", id=number)
    served.right.send(msgspec.msgpack.encode([1, "late"]), id=number)
    assert calculator.notes() == []
    assert [(record.name, record.levelno) for record in caplog.records] == [
        ("machport.interface", logging.ERROR),
        ("machport.interface", logging.WARNING),
        ("machport.interface", logging.WARNING),
    ]
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == "Calculator.note, one-way, raised"
    assert "a bad note" in str(caplog.records[0].exc_info)
    assert "was not begun" in said[1]
    assert "its time was over" in said[2]


def test_a_one_way_call_to_a_dead_port_says_so(served: Served, calculator: Calculator) -> None:
    calculator.note("there")
    served.port.close()
    with pytest.raises(machport.DeadPort):
        calculator.note("gone")
