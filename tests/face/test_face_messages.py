"""Messages and notifications as objects, and calls that always get their one answer."""

from __future__ import annotations

import gc
import os
import sys
import threading
from types import FrameType

import pytest

import machport
from machport import mach
from machport.abi import message as layout
from machport.abi import traps as t

WAIT = 20.0


def test_a_body_has_any_length(task: machport.Task) -> None:
    port = task.allocate(qlimit=100)
    send = port.make_send()
    bodies = [bytes(range(size)) for size in range(12)] + [os.urandom(1_000_003)]
    for body in bodies:
        send.send(body)

    assert [port.receive(WAIT).body for _ in bodies] == bodies


def test_a_message_says_who_sent_it(task: machport.Task) -> None:
    """M35."""
    port = task.allocate()
    port.make_send().send(b"", id=7)
    message = port.receive(WAIT)

    assert message.id == 7
    assert message.sender == (os.geteuid(), os.getegid())
    assert message.pid == os.getpid()
    assert message.seqno == 0
    assert message.port == port.name


def test_memory_travels_beside_the_body(task: machport.Task) -> None:
    """M10."""
    port = task.allocate()
    regions = [b"", b"x", os.urandom(300_000)]
    port.make_send().send(b"body", memory=regions)
    message = port.receive(WAIT)

    assert message.body == b"body"
    assert message.memory == regions


def test_a_reply_goes_to_whoever_asked(task: machport.Task) -> None:
    port, answers = task.allocate(), task.allocate()
    port.make_send().send(b"question", id=5, reply_to=answers)
    request = port.receive(WAIT)
    assert request.expects_reply
    request.reply(b"answer")

    assert not request.expects_reply
    answer = answers.receive(WAIT)
    assert (answer.body, answer.id) == (b"answer", 105)
    with pytest.raises(machport.ClosedRight, match="answered or closed"):
        request.reply(b"again")
    with pytest.raises(machport.InvalidArgument, match="sent, not called"):
        answer.reply(b"")


def test_closing_a_request_unanswered_tells_who_asked(task: machport.Task) -> None:
    """N50, N51."""
    port, answers = task.allocate(), task.allocate()
    port.make_send().send(b"question", reply_to=answers)
    with port.receive(WAIT):
        pass

    assert isinstance(answers.receive(WAIT), machport.SendOnceNotification)


def test_closing_a_message_gives_up_the_rights_that_were_not_taken(task: machport.Task) -> None:
    port = task.allocate()
    carried = [task.allocate(), task.allocate()]
    send = port.make_send()
    before = len(task.calls.mach_port_names(task.name))
    send.send(rights=[right.move() for right in carried])
    with port.receive(WAIT) as message:
        kept = message.rights[0]
        message.rights[0] = None

    assert isinstance(kept, machport.ReceiveRight)
    assert kept.status().msgcount == 0
    assert len(task.calls.mach_port_names(task.name)) == before - 1


def test_a_right_whose_port_died_on_the_way_is_a_dead_name(task: machport.Task) -> None:
    """P10."""
    port, other = task.allocate(), task.allocate()
    port.make_send().send(rights=[other.make_send().move()])
    other.close()
    with port.receive(WAIT) as message:
        assert isinstance(message.rights[0], machport.DeadName)


def in_thread(target: object) -> threading.Thread:
    thread = threading.Thread(target=target)  # type: ignore[arg-type]
    thread.start()
    return thread


def test_a_call_returns_the_answer(task: machport.Task) -> None:
    port = task.allocate()

    def answer_twice() -> None:
        for index in range(2):
            port.receive(WAIT).reply(b"answer %d" % index)

    thread = in_thread(answer_twice)
    send = port.make_send()

    assert send.call(b"question").body == b"answer 0"
    assert send.call(b"question").body == b"answer 1"
    thread.join(WAIT)


def test_a_call_whose_request_is_dropped_raises(task: machport.Task) -> None:
    """Promise 1."""
    port = task.allocate()
    thread = in_thread(lambda: port.receive(WAIT).close())

    with pytest.raises(machport.ServerDied) as caught:
        port.make_send().call(b"question")
    assert caught.value.code == mach.MIG_SERVER_DIED
    thread.join(WAIT)


def test_a_call_to_a_port_that_dies_with_the_request_waiting_raises(task: machport.Task) -> None:
    """Promise 1, M31."""
    port, other = task.allocate(), machport.Task(label="server")
    other_port = other.allocate()
    port.make_send().send(rights=[])  # the first message of this port is not the request
    send = port.make_send()
    done = threading.Event()

    def destroy_when_it_waits() -> None:
        while port.status().msgcount < 2:
            other_port.make_send().send(b"")
            other_port.receive(WAIT)
        port.close()
        done.set()

    thread = in_thread(destroy_when_it_waits)
    with pytest.raises(machport.ServerDied):
        send.call(b"question", timeout=WAIT)
    assert done.wait(WAIT)
    thread.join(WAIT)
    other.close()


def test_a_call_to_a_dead_port_was_not_sent(task: machport.Task) -> None:
    port = task.allocate()
    send = port.make_send()
    port.close()

    with pytest.raises(machport.ServerDied, match="was not sent") as caught:
        send.call(b"question")
    assert caught.value.code == mach.MACH_SEND_INVALID_DEST
    assert isinstance(caught.value, BrokenPipeError)


def test_an_answer_after_the_timeout_is_thrown_away(task: machport.Task) -> None:
    port = task.allocate()
    send = port.make_send()
    with pytest.raises(machport.TimedOut):
        send.call(b"first", timeout=0.001)
    late = port.receive(WAIT)
    with pytest.raises(machport.DeadPort):
        late.reply(b"too late")

    thread = in_thread(lambda: port.receive(WAIT).reply(b"in time"))
    assert send.call(b"second", timeout=WAIT).body == b"in time"
    thread.join(WAIT)


def test_a_user_cannot_forge_a_notification(task: machport.Task) -> None:
    """N62, N63: the number alone does not make one, nor does a send-once right."""
    port = task.allocate()
    payload = layout.NDR + port.name.to_bytes(4, "little")
    for disposition in (mach.MACH_MSG_TYPE_MAKE_SEND, mach.MACH_MSG_TYPE_MAKE_SEND_ONCE):
        message = layout.pack(layout.bits(disposition), port.name, id=mach.MACH_NOTIFY_DEAD_NAME, inline=payload)
        assert task.calls.mach_msg(t.MsgTrap(mach.MACH_SEND_MSG, message)).code == 0

        received = port.receive(WAIT)
        assert received.id == mach.MACH_NOTIFY_DEAD_NAME
        assert not isinstance(received, machport.Notification)


def test_no_senders_carries_its_count(task: machport.Task) -> None:
    """N37 to N39."""
    port, notices = task.allocate(), task.allocate()
    first, second = port.make_send(), port.make_send()
    assert port.request_no_senders(notices) is None
    first.close()
    second.close()

    notice = notices.receive(WAIT)
    assert isinstance(notice, machport.NoSendersNotification)
    assert notice.count == 2


def test_port_deleted_carries_the_freed_name(task: machport.Task) -> None:
    """N23."""
    port, notices, other = task.allocate(), task.allocate(), task.allocate()
    right = other.make_send_once()
    name = right.name
    right.request_dead_name(notices)
    right.send(b"")

    notice = notices.receive(WAIT)
    assert isinstance(notice, machport.PortDeletedNotification)
    assert notice.name == name
    assert port.status().msgcount == 0


def test_port_destroyed_brings_the_port_back_with_its_queue(task: machport.Task) -> None:
    """N28 to N33."""
    port, back = task.allocate(), task.allocate()
    send = port.make_send()
    send.send(b"waiting")
    port.request_port_destroyed(back)
    port.close()

    with back.receive(WAIT) as notice:
        assert isinstance(notice, machport.PortDestroyedNotification)
        assert notice.right.receive(WAIT).body == b"waiting"
    with pytest.raises(machport.DeadPort):
        send.send(b"the notification was closed with the right in it")


def test_a_request_returns_the_one_before(task: machport.Task) -> None:
    """N2, N3."""
    port, first, second = task.allocate(), task.allocate(), task.allocate()
    assert port.request_port_destroyed(first) is None
    previous = port.request_port_destroyed(second)
    assert previous is not None
    previous.send(b"not needed any more")
    assert first.receive(WAIT).body == b"not needed any more"

    cancelled = port.request_port_destroyed(None)
    assert cancelled is not None
    cancelled.close()
    assert isinstance(second.receive(WAIT), machport.SendOnceNotification)


@pytest.mark.skipif(not machport.is_compiled(), reason="the interpreted form is made of functions of Python")
def test_no_function_of_python_runs_between_a_message_and_whoever_iterates(task: machport.Task) -> None:
    """There a handler of signals could raise, and the message, with the rights in it, be lost."""
    port, once = task.allocate(qlimit=20), task.allocate()
    send = port.make_send()
    for _ in range(2):
        send.send(b"short")
        send.send(bytes(100_000))
        send.send(b"", rights=[once.make_send_once().move(), once.make_send().move()])
        send.send(bytes(2_000_000), memory=[b"memory"])
    called: list[str] = []
    # What was forgotten is told with a call, and finalizers run when they like; not with the calls below.
    gc.collect()
    task.usage()

    def note(frame: FrameType, event: str, arg: object) -> None:
        # Before an answer is taken it is still the daemon's: how long to look next time, and wider rings.
        if event == "call" and not frame.f_code.co_filename.endswith(("spinning.py", "rings.py")):
            called.append(frame.f_code.co_name)

    messages = iter(port)
    received = [next(messages) for _ in range(4)]
    gc.disable()
    try:
        for _ in range(4):
            sys.setprofile(note)
            received += [next(messages)]
            sys.setprofile(None)
            assert not called
    finally:
        gc.enable()
