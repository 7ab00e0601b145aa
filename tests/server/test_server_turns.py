"""Whose turn it is: a task whose calls take long does not make others wait for all of them."""

from __future__ import annotations

from collections.abc import Callable

from actors import PATIENCE, Client

import machport

NewClient = Callable[[str], Client]

#: Fills a queue with notifications, and asks for the last of them again and again, which is found by looking at all.
FILL = """
from machport.abi import constants as c, traps as t
calls, me = task.calls, task.name
port = calls.mach_port_allocate(me, c.MACH_PORT_RIGHT_RECEIVE)
for _ in range(100):
    made = calls.many(t.EXTRACT_RIGHT, [(me, port, c.MACH_MSG_TYPE_MAKE_SEND_ONCE)] * 1000)
    calls.many(t.DEALLOCATE, [(me, fields[0]) for fields, _ in made])
"""
CALLS = 256


def test_after_a_long_call_others_have_a_turn(task: machport.Task, new_client: NewClient) -> None:
    """As many as the ring takes are there at once, and 64 short ones would be one turn."""
    greedy = new_client("greedy")
    greedy.do(FILL)
    port = task.allocate()
    right = port.make_send()
    greedy.begin(f"[mark(), len(calls.many(t.PEEK, [(me, port, 99_999)] * {CALLS}))][1]")
    greedy.wait_for_mark()
    trips = 0
    while not greedy._answers.poll():
        right.send(b"there and back")
        port.receive(PATIENCE).close()
        trips += 1
    assert greedy.finish() == CALLS
    # Turns of 64 such calls would leave four or five.
    assert trips > 10
