"""Exceptions of routines travel; nothing that the other side names is looked up outside the interface."""

from __future__ import annotations

import contextlib
import pickle
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from actors import PATIENCE
from interface_actors import Served, kinds

import machport
from machport.abi import constants as c
from machport.interfaces import failing
from machport.interfaces.definition import interface_of


class OutOfStock(Exception):
    def __init__(self, item: str, left: int) -> None:
        super().__init__(f"{item} is out of stock")
        self.item = item
        self.left = left


class NotFoundError(LookupError):
    pass


class Undeclared(Exception):
    pass


@machport.interface(name="org.example.shop", version=(1, 2), errors=(OutOfStock, NotFoundError))
class Shop:
    def fail(self, kind: str) -> None:
        raise NotImplementedError


class Failing:
    """Raises what the test says."""

    def __init__(self) -> None:
        self.error: BaseException = ValueError()

    def fail(self, kind: str) -> None:
        if kind != "well":
            raise self.error


class Opaque(Exception):
    def __str__(self) -> str:
        raise RuntimeError("cannot be shown")


@pytest.fixture
def failing_shop() -> Failing:
    return Failing()


@pytest.fixture
def shop(task: machport.Task, failing_shop: Failing) -> Iterator[Shop]:
    with Served(task, Shop, failing_shop) as served:
        yield machport.proxy(Shop, served.right, timeout=PATIENCE)


def raised(shop: Shop, failing_shop: Failing, error: BaseException) -> Any:
    """What the caller gets when the routine raises; the server goes on."""
    failing_shop.error = error
    with pytest.raises(Exception) as caught:
        shop.fail("badly")
    shop.fail("well")
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad", 3),
        KeyError("key"),
        FileNotFoundError(2, "No such file"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
        ZeroDivisionError(),
        TimeoutError("of its own"),
        UserWarning([1, {"a": None}]),
    ],
)
def test_builtin_exceptions_arrive_as_what_they_are(shop: Shop, failing_shop: Failing, error: Exception) -> None:
    got = raised(shop, failing_shop, error)
    assert type(got) is type(error)
    assert got.args == error.args
    assert str(got) == str(error)
    (note,) = got.__notes__
    assert note.startswith("Raised by the server of org.example.shop:\nTraceback")
    assert "raise self.error" in note


def test_declared_exceptions_arrive_with_their_arguments_and_attributes(shop: Shop, failing_shop: Failing) -> None:
    got = raised(shop, failing_shop, OutOfStock("tea", 0))
    assert type(got) is OutOfStock
    assert (str(got), got.item, got.left) == ("tea is out of stock", "tea", 0)
    assert type(raised(shop, failing_shop, NotFoundError("x"))) is NotFoundError


def test_other_exceptions_arrive_as_remote_errors(shop: Shop, failing_shop: Failing) -> None:
    got = raised(shop, failing_shop, Undeclared("text"))
    assert type(got) is machport.RemoteError
    assert (got.type_name, got.text, got.code) == ("Undeclared", "text", c.MIG_REMOTE_ERROR)
    assert "raise self.error" in got.traceback
    assert got.traceback in got.__notes__[0]
    again = pickle.loads(pickle.dumps(got))
    assert (again.type_name, again.text, again.traceback) == (got.type_name, got.text, got.traceback)


def test_what_became_of_the_servers_own_calls_is_never_taken_for_the_callers(shop: Shop, failing_shop: Failing) -> None:
    for error in (machport.ServerDied("its server"), machport.TimedOut("its call"), machport.BadArguments("its own")):
        got = raised(shop, failing_shop, error)
        assert type(got) is machport.RemoteError
        assert got.type_name == type(error).__name__


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (type("ValueError", (Exception,), {})("not the builtin one"), "ValueError"),
        (type("OutOfStock", (Exception,), {})("not the declared one"), "OutOfStock"),
        (type("MyKeyError", (KeyError,), {})("a"), "MyKeyError"),
        (StopIteration(3), "StopIteration"),
        (ExceptionGroup("many", [ValueError()]), "ExceptionGroup"),
        (Opaque(), "Opaque"),
    ],
)
def test_exceptions_of_the_same_name_and_strange_ones_are_remote_errors(
    shop: Shop, failing_shop: Failing, error: Exception, name: str
) -> None:
    got = raised(shop, failing_shop, error)
    assert type(got) is machport.RemoteError
    assert got.type_name == name


def test_arguments_that_cannot_travel_leave_what_they_say(shop: Shop, failing_shop: Failing) -> None:
    error = ValueError(object())
    assert raised(shop, failing_shop, error).args == (str(error),)
    assert raised(shop, failing_shop, ValueError("x" * 2_000_000)).args == ("x" * 10_000,)
    assert raised(shop, failing_shop, ValueError("\ud800")).args == ("?",)
    stuck = OutOfStock("tea", 0)
    stuck.item = object()  # type: ignore[assignment]
    got = raised(shop, failing_shop, stuck)
    assert (type(got), got.args) == (OutOfStock, ("tea is out of stock",))


def test_what_ends_a_process_ends_the_loop_and_is_no_answer(task: machport.Task) -> None:
    implementation = Failing()
    implementation.error = KeyboardInterrupt()
    with task.allocate() as port, port.make_send() as right:
        asked: list[object] = []

        def ask() -> None:
            try:
                machport.proxy(Shop, right, timeout=PATIENCE).fail("badly")
            except machport.MachError as error:
                asked.append(type(error))

        thread = threading.Thread(target=ask)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            machport.serve(Shop, implementation, port)
        thread.join(PATIENCE)
        assert asked == [machport.ServerDied]


# Answers that were made by hand


def failure(**fields: Any) -> Exception:
    """The exception for an answer."""
    whole = {"code": c.MIG_REMOTE_ERROR, "text": "text", "server": ("org.example.shop", 1, 2), **fields}
    return failing.error_of(interface_of(Shop), msgspec.msgpack.encode(failing.Failure(**whole)), "Shop.fail")


@pytest.mark.parametrize(
    "kind", ["os.system", "SystemExit", "KeyboardInterrupt", "eval", "print", "BaseException", "machport.TimedOut", ""]
)
def test_names_that_do_not_travel_are_text_and_nothing_else(kind: str) -> None:
    error = failure(kind=kind, arguments=["echo"])
    assert type(error) is machport.RemoteError
    assert error.type_name == kind


def test_hostile_arguments_and_attributes_do_no_harm() -> None:
    assert type(failure(kind="UnicodeDecodeError", arguments=[1])) is machport.RemoteError
    error = failure(
        kind="OutOfStock", arguments=[1], state={"__class__": "x", "__notes__": 3, "__traceback__": 3, "item": "tea"}
    )
    assert type(error) is OutOfStock
    assert vars(error).keys() == {"item", "__notes__"}
    assert "Raised by the server" in error.__notes__[0]


def test_an_answer_that_is_none_is_a_mismatch() -> None:
    assert type(failure(code=12345)) is machport.ReplyMismatch
    for body in (b"", b"\xc1", b"\x92\x01\x02", msgspec.msgpack.encode({"a": 1})):
        assert type(failing.error_of(interface_of(Shop), body, "Shop.fail")) is machport.ReplyMismatch


@contextlib.contextmanager
def answering(task: machport.Task, answer: Callable[[machport.Message], None]) -> Iterator[Shop]:
    """A proxy whose calls a function answers."""

    def run() -> None:
        for request in port:
            with request:
                answer(request)

    thread = threading.Thread(target=run, daemon=True)
    with task.allocate() as port, port.make_send() as right:
        thread.start()
        shop = machport.proxy(Shop, right, timeout=PATIENCE)
        shop._machport_link.checked = True  # type: ignore[attr-defined]
        yield shop
    thread.join(PATIENCE)


def test_answers_that_do_not_fit_are_refused_and_leave_nothing(task: machport.Task) -> None:
    good = msgspec.msgpack.encode([0, None])

    def with_region(request: machport.Message) -> None:
        request.reply(good, memory=[b"extra"])

    def with_right(request: machport.Message) -> None:
        request.reply(good, rights=[task.allocate().move()])

    for answer in (
        lambda request: request.reply(good, id=7),
        lambda request: request.reply(b""),
        lambda request: request.reply(msgspec.msgpack.encode([0, "text"])),
        lambda request: request.reply(msgspec.msgpack.encode([0])),
        lambda request: request.reply(msgspec.msgpack.encode([None, None])),
        lambda request: request.reply(b"\x92\x00\xc0\xc0"),
        with_region,
        with_right,
    ):
        with answering(task, answer) as shop:
            seen = []
            for _ in range(2):
                with pytest.raises(machport.ReplyMismatch) as caught:
                    shop.fail("")
                seen.append(kinds(task))
            assert seen[0] == seen[1]
            assert caught.value.code == c.MIG_REPLY_MISMATCH
