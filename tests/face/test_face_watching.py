"""Notifications that are waited for one by one, by callback or by ``wait``."""

from __future__ import annotations

import queue
import sys
import threading

import pytest
from actors import DaemonProcess

import machport
from machport import mach

WAIT = 20.0


def test_a_callback_is_called_once_when_the_port_dies(task: machport.Task) -> None:
    """N13: one notification for each entry."""
    port = task.allocate()
    right = port.make_send()
    called: queue.Queue[machport.DeadNameNotification] = queue.Queue()

    watch = right.on_dead_name(called.put)
    assert not watch.done
    port.close()

    notice = called.get(timeout=WAIT)
    assert notice.name == right.name
    assert watch.wait(WAIT) is notice
    assert called.empty()


def test_any_number_may_watch_one_right(task: machport.Task) -> None:
    """N7: the kernel has one request for each entry, which they share."""
    port = task.allocate()
    right = port.make_send()
    called: queue.Queue[object] = queue.Queue()

    watches = [right.on_dead_name(called.put), right.on_dead_name(), right.on_dead_name(called.put)]
    watches.pop().close()
    port.close()

    (first, second) = [watch.wait(WAIT) for watch in watches]
    assert first is second
    assert called.get(timeout=WAIT) is first
    assert called.empty()


def test_a_dead_port_is_told_of_at_once(task: machport.Task) -> None:
    """N22."""
    port = task.allocate()
    right = port.make_send()
    port.close()

    assert right.dead(WAIT).name == right.name


def test_waiting_has_an_end(task: machport.Task) -> None:
    port = task.allocate()
    right = port.make_send()

    with pytest.raises(machport.TimedOut, match="death of the port"):
        right.dead(0.01)
    with pytest.raises(machport.TimedOut, match="end of all senders"):
        port.no_senders(timeout=0.01)
    # Both requests were withdrawn: one's own may be made.
    assert right.request_dead_name(port) is None
    assert port.request_no_senders(port) is None


def test_the_end_of_all_senders_is_told_with_its_count(task: machport.Task) -> None:
    """N37, N39."""
    port = task.allocate()
    right = port.make_send()
    watch = port.on_no_senders()

    right.close()

    assert watch.wait(WAIT).count == 1
    assert port.no_senders(timeout=WAIT).count == 1


def test_a_returned_receive_right_has_its_queue(task: machport.Task) -> None:
    """N31: asked for before it is moved away."""
    port = task.allocate()
    right = port.make_send()
    watch = port.on_port_destroyed()
    right.send(b"waiting")

    port.close()

    returned = watch.wait(WAIT).right
    assert isinstance(returned, machport.ReceiveRight)
    assert returned.receive(WAIT).body == b"waiting"


def test_a_right_that_is_given_up_ends_its_watch(task: machport.Task) -> None:
    """N23: a port-deleted notification comes instead."""
    called: queue.Queue[object] = queue.Queue()
    with machport.Task(label="other") as other, other.check_in("watched"):
        right = task.look_up("watched")
        watch = right.on_dead_name(called.put)

        right.close()

        with pytest.raises(machport.ClosedRight, match="given up"):
            watch.wait(WAIT)
        assert called.empty()


def test_a_request_of_ones_own_is_not_displaced_by_a_watch(task: machport.Task) -> None:
    port, deaths = task.allocate(), task.allocate()
    right = port.make_send()
    right.request_dead_name(deaths)

    with pytest.raises(machport.AlreadyExists, match="to a port already"):
        right.on_dead_name()

    port.close()
    assert isinstance(deaths.receive(WAIT), machport.DeadNameNotification)


def test_a_watch_that_is_displaced_says_so(task: machport.Task) -> None:
    """N6: a new request takes the place of the one before, whose right it gives back."""
    port, deaths = task.allocate(), task.allocate()
    right = port.make_send()
    watch = right.on_dead_name()

    previous = right.request_dead_name(deaths)
    assert previous is not None
    previous.close()

    with pytest.raises(machport.ClosedRight, match="others asked"):
        watch.wait(WAIT)


def test_closing_the_last_watch_withdraws_the_request(task: machport.Task) -> None:
    port = task.allocate()
    right = port.make_send()
    names = len(task.calls.mach_port_names(task.name))
    first, second = right.on_dead_name(), right.on_dead_name()

    first.close()
    assert not second.done
    second.close()

    assert right.request_dead_name(None) is None
    # The task's port set for such ports stays.
    assert len(task.calls.mach_port_names(task.name)) == names + 1
    with pytest.raises(machport.ClosedRight, match="any longer"):
        second.wait(0)


def test_a_callback_that_fails_is_logged_and_the_next_is_called(
    task: machport.Task, caplog: pytest.LogCaptureFixture
) -> None:
    port = task.allocate()
    right = port.make_send()
    called = threading.Event()

    def fail(notice: machport.DeadNameNotification) -> None:
        raise RuntimeError("not this one")

    right.on_dead_name(fail)
    right.on_dead_name(lambda notice: called.set())
    port.close()

    assert called.wait(WAIT)
    assert "not this one" in caplog.text


def test_what_cannot_be_called_is_refused_before_anything_is_asked(task: machport.Task) -> None:
    port = task.allocate()
    right = port.make_send()

    with pytest.raises(machport.InvalidArgument, match="cannot be called"):
        right.on_dead_name("callback")  # type: ignore[arg-type]
    assert right.request_dead_name(None) is None


def test_a_coroutine_function_is_no_callback(task: machport.Task) -> None:
    async def callback(notice: machport.DeadNameNotification) -> None: ...

    port = task.allocate()
    with pytest.raises(machport.InvalidArgument, match="which nobody would run"):
        port.make_send().on_dead_name(callback)


def test_an_ordinary_watch_is_not_awaited(task: machport.Task) -> None:
    port = task.allocate()
    right = port.make_send()

    async def wrong() -> None:
        await right.on_dead_name()

    with pytest.raises(machport.InvalidArgument, match=r"machport\.aio"):
        wrong().send(None)


def test_whoever_waits_learns_that_the_daemon_is_gone(task: machport.Task, daemon: DaemonProcess) -> None:
    port = task.allocate()
    right = port.make_send()
    watch = right.on_dead_name()

    daemon.kill()

    with pytest.raises(machport.DaemonLost):
        watch.wait(WAIT)


def test_whoever_waits_learns_that_the_task_was_closed(daemon: DaemonProcess) -> None:
    with machport.Task(label="short") as short:
        port = short.allocate()
        watch = port.make_send().on_dead_name()

    with pytest.raises(machport.DeadTask):
        watch.wait(WAIT)


def test_closing_a_watch_that_was_displaced_leaves_the_other_request_alone(task: machport.Task) -> None:
    """N7: who asks last is told, also if the one before him gives up later."""
    port, own = task.allocate(), task.allocate()
    right = port.make_send()
    watch = right.on_dead_name()
    displaced = right.request_dead_name(own)
    assert displaced is not None

    watch.close()
    port.close()

    assert isinstance(own.receive(WAIT), machport.DeadNameNotification)


@pytest.mark.parametrize("made", [0, 1])
def test_no_senders_are_still_told_to_who_displaced_a_watch_that_is_closed(task: machport.Task, made: int) -> None:
    """N42: when they have gone, and not before one was made."""
    port, own = task.allocate(), task.allocate()
    rights = [port.make_send() for _ in range(made)]
    watch = port.on_no_senders(sync=1)
    displaced = port.request_no_senders(own, sync=1)
    assert displaced is not None

    watch.close()

    with pytest.raises(machport.TimedOut):
        own.receive(0)
    for right in [*rights, port.make_send()]:
        right.close()
    notice = own.receive(WAIT)
    assert isinstance(notice, machport.NoSendersNotification) and notice.count == made + 1


def test_a_watch_is_withdrawn_though_the_object_that_began_it_is_closed(task: machport.Task) -> None:
    """N20: a request that is left behind would bring a reference of the dead name that nobody gives back."""
    port = task.allocate()
    right = port.make_send()
    with right.duplicate() as first:
        watch = first.on_dead_name()

    watch.close()
    port.close()

    assert right.is_dead()
    assert task.calls.mach_port_get_refs(task.name, right.name, mach.MACH_PORT_RIGHT_DEAD_NAME) == 1


def test_a_callback_that_would_exit_does_not_take_the_other_watches_along(
    task: machport.Task, caplog: pytest.LogCaptureFixture
) -> None:
    """It ends nothing but itself: the thread goes on for all who wait."""
    first, second = task.allocate(), task.allocate()
    called = threading.Event()
    right, other = first.make_send(), second.make_send()
    right.on_dead_name(lambda _: sys.exit("in a callback"))
    right.on_dead_name(lambda _: called.set())
    watch = other.on_dead_name()

    first.close()
    assert called.wait(WAIT)
    second.close()

    assert watch.wait(WAIT).name == other.name
    assert "in a callback" in caplog.text
