"""Descriptors with ends of queues that children of this process are about to inherit.  For this room and the face."""

from __future__ import annotations

import os
from collections.abc import Callable

_kept: list[tuple[int, Callable[[], bool]]] = []


def keep_until(descriptor: int, passed: Callable[[], bool]) -> None:
    """Own a descriptor that a child is about to inherit, and close it when ``close_passed`` finds that it has."""
    close_passed()
    _kept.append((descriptor, passed))


def close_passed() -> None:
    """Close what children have inherited by now, so that an end is lost if its child dies before it takes it."""
    for kept in [kept for kept in _kept if kept[1]()]:
        try:
            _kept.remove(kept)
        except ValueError:
            continue  # another thread was faster, and closes it
        os.close(kept[0])


def _after_fork() -> None:
    """In a forked child: the parent's are the parent's to close."""
    for descriptor, _ in _kept:
        os.close(descriptor)
    _kept.clear()


os.register_at_fork(after_in_child=_after_fork)
