"""The two faces have the same surface, and what waits in one is awaited in the other."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import machport
from machport import aio
from machport.face import blocking, child

PAIRS = [
    (blocking.SendRight, aio.SendRight),
    (blocking.ReceiveRight, aio.ReceiveRight),
    (blocking.PortSet, aio.PortSet),
    (blocking.PortDestroyedNotification, aio.PortDestroyedNotification),
    (blocking.Task, aio.Task),
    (child.Child, aio.Child),
]
#: Methods that wait in the ordinary classes.
WAITING = {
    "SendRight": {"send", "send_many", "call", "dead"},
    "ReceiveRight": {"receive", "receive_many", "reply_and_receive", "serve", "no_senders"},
    "PortSet": {"receive", "receive_many", "reply_and_receive", "serve"},
    "PortDestroyedNotification": set(),
    "Task": set(),
    "Child": {"join"},
}
#: What only the inside of one of them has.
INSIDE = {"loop_calls"}
ids = [pair[0].__name__ for pair in PAIRS]


def names(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")} - INSIDE


def shape(function: object) -> list[tuple[str, object, object]]:
    """Parameters with their kinds and defaults."""
    parameters = inspect.signature(function).parameters.values()  # type: ignore[arg-type]
    return [(parameter.name, parameter.kind, parameter.default) for parameter in parameters]


@pytest.mark.parametrize(("ordinary", "awaited"), PAIRS, ids=ids)
def test_both_classes_have_the_same_names(ordinary: type, awaited: type) -> None:
    assert ordinary.__name__ == awaited.__name__
    assert names(ordinary) == names(awaited)


@pytest.mark.parametrize(("ordinary", "awaited"), PAIRS, ids=ids)
def test_methods_have_the_same_parameters_and_all_are_described(ordinary: type, awaited: type) -> None:
    for name in names(ordinary):
        one, other = inspect.getattr_static(ordinary, name), inspect.getattr_static(awaited, name)
        assert (inspect.getdoc(getattr(awaited, name)) or "").strip() or not callable(other), name
        if name in WAITING[ordinary.__name__]:
            assert shape(one) == shape(other), name
            assert one is not other
        elif one is not other and inspect.isfunction(other):
            assert shape(one) == shape(other), name


@pytest.mark.parametrize(("ordinary", "awaited"), PAIRS, ids=ids)
def test_just_what_waits_is_awaited(ordinary: type, awaited: type) -> None:
    found = {name for name in names(awaited) if inspect.iscoroutinefunction(inspect.getattr_static(awaited, name))}
    assert found == WAITING[ordinary.__name__]
    assert hasattr(ordinary, "__iter__") == hasattr(awaited, "__aiter__")
    assert not hasattr(awaited, "__iter__")


def test_the_package_offers_what_differs() -> None:
    assert set(aio.__all__) == {kind.__name__ for kind, _ in PAIRS} | {"task_self"}
    assert set(aio.__all__) <= {*machport.__all__, *dir(blocking)}


def test_the_package_does_not_load_asyncio_and_aio_is_loaded_when_it_is_used() -> None:
    """A loop is as much to import as all the rest; and neither anyio nor trio are needed."""
    source = (
        "import sys, machport; assert 'asyncio' not in sys.modules; assert 'machport.aio' not in sys.modules;"
        "machport.aio.Task; assert not {'anyio', 'trio', 'sniffio'} & sys.modules.keys(); assert 'aio' in dir(machport)"
    )
    subprocess.run([sys.executable, "-c", source], check=True)
