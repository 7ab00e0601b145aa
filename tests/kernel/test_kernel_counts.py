"""What a kernel counts, and what it says was lost with a task."""

from __future__ import annotations

from kernel_driver import DEATH, MAKE_SEND, MAKE_SEND_ONCE, MOVE_SEND_ONCE, NO_SENDERS, PORT_DESTROYED, three_tasks

from machport.abi import constants as c
from machport.kernel import ports
from machport.kernel.counts import NOTES_MAX
from machport.kernel.snapshot import restore, save


def test_messages_and_bytes_are_counted_as_they_are_sent_and_received() -> None:
    a, b, _ = three_tasks()
    port = b.port()
    send = a.take(b, port, MAKE_SEND)
    a.send(send, inline=b"12345678")
    counts = a.kernel.counts
    assert (counts.sent, counts.sent_bytes, counts.queued) == (1, 24 + 8, 1)
    assert (counts.received, counts.received_bytes) == (0, 0)
    b.receive(port)
    assert (counts.received, counts.received_bytes, counts.queued) == (1, 24 + 8, 0)


def test_the_count_of_ports_is_that_of_ports_that_live() -> None:
    """Those of tasks included."""
    a, *_ = three_tasks()
    assert a.kernel.counts.ports == 3
    port = a.port()
    a.pset()
    assert a.kernel.counts.ports == 4
    a.kill(port)
    assert a.kernel.counts.ports == 3
    a.terminate()
    assert a.kernel.counts.ports == 2


def test_what_a_task_held_when_it_ended_was_lost_with_it() -> None:
    """Its ports with their messages, and its rights to those of others."""
    a, b, c_ = three_tasks()
    served, other, answers = a.port(), b.port(), c_.port()
    a.take(b, other, MAKE_SEND)
    a.take(c_, answers, MAKE_SEND_ONCE)
    to_served = b.take(a, served, MAKE_SEND)
    b.send(to_served, inline=b"1234")
    b.send(to_served)
    a.terminate()
    lost = a.kernel.losses.take(a.task.number)
    assert (lost.ports, lost.returned, lost.send_rights, lost.send_once_rights) == (1, 0, 1, 1)
    assert (lost.messages, lost.bytes) == (2, 24 + 24 + 4)
    assert a.kernel.counts.queued == 1, "the send-once notification"


def test_the_notifications_that_an_end_has_caused_say_whom_they_told_of_what() -> None:
    a, b, c_ = three_tasks()
    served, notify = a.port(), b.port()
    ports.set_label(a.kernel, a.task, served, "printer")
    to_served = b.take(a, served, MAKE_SEND)
    b.request(DEATH, to_served, notify)
    watched = c_.port()
    ports.set_label(a.kernel, c_.task, watched, "paper")
    a.take(c_, watched, MAKE_SEND)
    c_.request(NO_SENDERS, watched, watched)
    a.terminate()
    lost = a.kernel.losses.take(a.task.number)
    assert lost.caused == {c.MACH_NOTIFY_DEAD_NAME: 1, c.MACH_NOTIFY_NO_SENDERS: 1}
    told = [(note.kind, note.port, note.name, note.label) for note in lost.notes]
    assert sorted(told) == [(NO_SENDERS, "paper", watched, "c"), (DEATH, "printer", to_served, "b")]


def test_a_receive_right_that_somebody_asked_for_is_not_lost() -> None:
    """N30."""
    a, b, _ = three_tasks()
    served, heir = a.port(), b.port()
    a.request(PORT_DESTROYED, served, a.take(b, heir, MAKE_SEND_ONCE), how=MOVE_SEND_ONCE)
    a.send(a.take(a, served, MAKE_SEND))
    a.terminate()
    lost = a.kernel.losses.take(a.task.number)
    assert (lost.ports, lost.returned, lost.messages) == (0, 1, 0)
    assert lost.caused[c.MACH_NOTIFY_PORT_DESTROYED] == 1


def test_of_many_notifications_the_first_are_told_and_all_are_counted() -> None:
    a, b, _ = three_tasks()
    notify = b.port()
    for _ in range(3 * NOTES_MAX):
        b.request(DEATH, b.take(a, a.port(), MAKE_SEND), notify)
    a.terminate()
    lost = a.kernel.losses.take(a.task.number)
    assert lost.caused == {c.MACH_NOTIFY_DEAD_NAME: 3 * NOTES_MAX}
    assert len(lost.notes) == NOTES_MAX


def test_what_others_destroy_is_no_loss_of_a_task() -> None:
    a, b, _ = three_tasks()
    b.kill(b.port())
    a.terminate()
    assert a.kernel.losses.take(a.task.number).ports == 0
    assert a.kernel.losses.take(a.task.number).notes == [], "taken once, it is forgotten"


def test_notifications_are_counted_by_kind_and_noted_for_whoever_wants_them() -> None:
    a, b, _ = three_tasks()
    a.kernel.notices = []
    notify = b.port()
    dies = a.port()
    port = a.port_behind(dies)
    b.request(DEATH, b.take(a, dies, MAKE_SEND), notify)
    a.kill(dies)
    assert a.kernel.counts.notified[c.MACH_NOTIFY_DEAD_NAME] == 1
    assert a.kernel.notices == [(c.MACH_NOTIFY_DEAD_NAME, port, b.port_behind(notify))]


def test_counts_go_on_in_a_kernel_that_was_saved() -> None:
    """What can be counted anew is: ports, and messages in queues."""
    a, b, _ = three_tasks()
    port = b.port()
    send = a.take(b, port, MAKE_SEND)
    a.send(send, inline=b"1234")
    a.send(send)
    b.receive(port)
    a.request(DEATH, send, a.port())
    b.kill(port)
    counts, again = a.kernel.counts, restore(save(a.kernel).state).kernel.counts
    for name in ("sent", "sent_bytes", "received", "received_bytes", "ports", "queued", "notified"):
        assert getattr(again, name) == getattr(counts, name), name
    assert again.queued == 1
    assert again.notified[c.MACH_NOTIFY_DEAD_NAME] == 1
