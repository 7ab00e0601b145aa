"""What is known as long as somebody else has it."""

from __future__ import annotations

import sys
import threading

from machport.client.known import Known


class Thing:
    """Something that can be collected."""


def test_what_nobody_else_has_is_known_no_more() -> None:
    known = Known[Thing]()
    things = [Thing() for _ in range(100)]
    for thing in things:
        known.add(thing)
    assert list(known) == things
    del things[10:90], thing
    assert list(known) == things


def test_what_is_gone_takes_no_room() -> None:
    known = Known[Thing]()
    kept = Thing()
    known.add(kept)
    for _ in range(10_000):
        known.add(Thing())
    assert len(known._references) < 100
    assert list(known) == [kept]


def test_nothing_is_called_when_something_goes() -> None:
    """An interrupt in a function that runs then would be lost."""
    known = Known[Thing]()
    things = [Thing() for _ in range(100)]
    for thing in things:
        known.add(thing)
    called: list[str] = []
    sys.setprofile(lambda frame, event, _: called.append(frame.f_code.co_name) if event == "call" else None)
    del things[:], thing
    sys.setprofile(None)
    assert called == []


def test_threads_that_come_and_go_lose_nothing_of_each_other() -> None:
    known = Known[Thing]()
    kept: list[Thing] = []
    start = threading.Barrier(4)

    def add() -> None:
        start.wait()
        for number in range(5000):
            thing = Thing()
            known.add(thing)
            if number % 50 == 0:
                kept.append(thing)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(known) == set(kept)
