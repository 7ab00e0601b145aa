"""Whatever comes to a typed server, it answers or ignores it, goes on, and keeps nothing."""

from __future__ import annotations

import contextlib
from contextlib import nullcontext
from typing import Any

import msgspec
from actors import PATIENCE, DaemonProcess
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from interface_actors import Served, kinds
from test_interface_rights import Carrier, Keeper

import machport
from machport.interfaces.definition import interface_of
from machport.interfaces.naming import DESCRIBE

ROUTINES = interface_of(Carrier).routines
IDS = [DESCRIBE, *(routine.id for routine in ROUTINES.values())]

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=9)
    | st.builds(
        lambda code, places: msgspec.msgpack.Ext(code, msgspec.msgpack.encode(places)),
        st.integers(-2, 4),
        st.lists(st.integers(-1, 3) | st.sampled_from(["<f8", "u1", [8], [1]]), max_size=3),
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)
bodies = st.binary(max_size=40) | st.lists(values, max_size=5).map(lambda found: msgspec.msgpack.encode([None, *found]))
kinds_of_rights = st.lists(st.sampled_from(["send", "once", "receive", "dead", "queue"]), max_size=3)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    number=st.sampled_from(IDS) | st.integers(0, 2**32 - 1),
    body=bodies,
    given_rights=kinds_of_rights,
    memory=st.lists(st.binary(max_size=16), max_size=2),
    way=st.sampled_from(["call", "send", "send right"]),
)
def attack(
    task: machport.Task,
    served: Served,
    keeper: Keeper,
    number: int,
    body: bytes,
    given_rights: list[str],
    memory: list[bytes],
    way: str,
) -> None:
    before = kinds(task)
    with machport.DataQueue(4096) as queue, task.allocate() as port:
        given: list[Any] = []
        for kind in given_rights:
            if kind == "queue" and "queue" in given_rights[: len(given)]:
                continue
            given.append(right_of(task, kind, port, queue))
        if way == "call":
            # What is one-way gets no answer.
            unanswered = contextlib.suppress(machport.ServerDied) if number == ROUTINES["tell"].id else nullcontext()
            with unanswered:
                served.right.call(body, id=number, rights=given, memory=memory, timeout=PATIENCE).close()
        else:
            reply_to = served.port if way == "send right" else None
            served.right.send(body, id=number, rights=given, memory=memory, reply_to=reply_to, timeout=PATIENCE)
        assert machport.proxy(Carrier, served.right, timeout=PATIENCE).regions([]) == []
        for kept in keeper.kept:
            if isinstance(kept, machport.Right | machport.DataQueue):
                kept.close()
        keeper.kept.clear()
    assert kinds(task) == before
    assert not served.ended.done()


def right_of(task: machport.Task, kind: str, port: machport.ReceiveRight, queue: machport.DataQueue) -> Any:
    if kind == "send":
        return port.make_send().move()
    if kind == "once":
        return port.make_send_once().move()
    if kind == "receive":
        return task.allocate().move()
    if kind == "queue":
        return queue.move_producer()
    other = task.allocate()
    right = other.make_send()
    other.close()
    return right.move()


def test_whatever_comes_the_server_goes_on_and_keeps_nothing(daemon: DaemonProcess, task: machport.Task) -> None:
    keeper = Keeper(task)
    with Served(task, Carrier, keeper) as served:
        assert machport.proxy(Carrier, served.right, timeout=PATIENCE).regions([]) == []
        attack(task, served, keeper)
