"""Who may be connected, by a clock that the test moves."""

from __future__ import annotations

import pytest

from machport.abi import constants as c
from machport.kernel.refusal import Refusal
from machport.peer.attestation import Peer
from machport.server.admission import Admission
from machport.server.configuration import DaemonLimits
from machport.server.connection import Channel


class Clock:
    """What ``time.monotonic`` is to the daemon."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def peer(pid: int) -> Peer:
    return Peer(pid, 0, 0, -1)


def channel() -> Channel:
    """Something that a connection is known by."""
    return Channel.__new__(Channel)


def test_whoever_is_silent_for_too_long_is_turned_away() -> None:
    clock = Clock()
    admission = Admission(DaemonLimits(hello_seconds=10), 1000, clock)
    assert admission.next() is None
    early, late, speaks = channel(), channel(), channel()
    assert admission.come(early, peer(1)) == []
    admission.come(speaks, peer(3))
    admission.leave(speaks)
    clock.now += 5
    admission.come(late, peer(2))
    assert admission.next() == 110
    clock.now += 5
    assert admission.overdue() == [(early, peer(1))]
    assert admission.overdue() == []
    assert admission.next() == 115


def test_of_too_many_silent_ones_the_oldest_of_the_same_process_goes_first() -> None:
    admission = Admission(DaemonLimits(silent=4, silent_per_process=2), 1000, Clock())
    other, first, second, third = (channel() for _ in range(4))
    admission.come(other, peer(1))
    admission.come(first, peer(2))
    assert admission.come(second, peer(2)) == []
    assert admission.come(third, peer(2)) == [(first, peer(2))]
    admission.come(channel(), peer(3))
    assert admission.come(channel(), peer(4)) == [(other, peer(1))]


def test_connections_are_limited_in_all_and_for_each_process() -> None:
    admission = Admission(DaemonLimits(connections=3, connections_per_process=2), 1000, Clock())
    admission.admit(peer(1))
    admission.admit(peer(1))
    with pytest.raises(Refusal) as caught:
        admission.admit(peer(1))
    assert caught.value.code == c.KERN_RESOURCE_SHORTAGE
    assert caught.value.says == "process 1 may have 2 connections, and has 2"
    admission.admit(peer(2))
    with pytest.raises(Refusal, match="the daemon may have 3 connections, and has 3"):
        admission.admit(peer(3))
    admission.dismiss(peer(1))
    admission.admit(peer(3))


def test_with_few_descriptors_there_are_few_connections() -> None:
    admission = Admission(DaemonLimits(), 48, Clock())
    assert (admission.connections_max, admission.per_process_max) == (16, 4)
