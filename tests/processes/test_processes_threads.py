"""Threads and signals: each blocks by itself, and an interruption loses nothing (M30, M36, T9, T10)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
from actors import PATIENCE, Client, DaemonProcess

import machport
from machport import mach

NewClient = Callable[[str], Client]


def test_each_message_goes_to_one_of_the_threads_that_wait_and_seqnos_have_no_gap(task: machport.Task) -> None:
    port, taken = task.allocate(qlimit=20), list[machport.Message]()

    def take_until_empty_body() -> None:
        for message in port:
            taken.append(message)
            if not message.body:
                return

    threads = [threading.Thread(target=take_until_empty_body) for _ in range(4)]
    for thread in threads:
        thread.start()
    sender = port.make_send()
    for number in range(40):
        sender.send(bytes([number]))
    for _ in threads:
        sender.send()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(message.body for message in taken if message.body) == [bytes([number]) for number in range(40)]
    assert sorted(message.seqno for message in taken if message.seqno is not None) == list(range(44))


def test_a_blocked_thread_does_not_keep_others_from_the_kernel(task: machport.Task) -> None:
    port = task.allocate()
    got: list[bytes] = []
    thread = threading.Thread(target=lambda: got.append(port.receive().body))
    thread.start()
    other = task.allocate()
    assert other.make_send().name in dict(task.calls.mach_port_names(task.name))
    port.make_send().send(b"at last")
    thread.join(PATIENCE)
    assert got == [b"at last"]


def test_closing_a_port_ends_the_iteration_of_another_thread(new_client: NewClient) -> None:
    client = new_client("client")
    client.do("port = task.allocate(); ended = threading.Event()")
    client.do("in_thread(task, lambda: (list(port), ended.set()))")
    client.do("port.close()")
    assert client.do(f"ended.wait({PATIENCE})")


def test_closing_the_task_wakes_its_blocked_threads_with_whose_doing_it_was(new_client: NewClient) -> None:
    client = new_client("client")
    client.do(
        "raised = []\n"
        "def blocked():\n"
        "    try: inbox.receive()\n"
        "    except machport.MachError as error: raised.append(type(error).__name__)\n"
    )
    client.do("in_thread(task, blocked); task.close()")
    client.do("[thread.join() for thread in threading.enumerate() if thread is not threading.main_thread()]")
    assert client.do("raised") == ["DeadTask"]


@pytest.mark.parametrize("half", ["SEND", "RCV"])
def test_thread_abort_is_reported_with_the_interrupt_option(new_client: NewClient, half: str) -> None:
    client = new_client("client")
    client.do(mach_program(half, interrupt=True))
    client.do("in_thread_of_mach(call)")
    client.do(f"mach.thread_abort(thread); ended.wait({PATIENCE})")
    assert client.do("raised.code") == getattr(mach, f"MACH_{half}_INTERRUPTED")
    assert client.do("mach.mach_port_get_receive_status(me, port).msgcount") == (half == "SEND")


@pytest.mark.parametrize("half", ["SEND", "RCV"])
def test_thread_abort_without_the_option_lets_the_wait_go_on(new_client: NewClient, half: str) -> None:
    client = new_client("client")
    client.do(mach_program(half, interrupt=False))
    client.do("in_thread_of_mach(call)")
    # The call that goes on is another trap: the second one after the first is written.
    client.begin("again = threading.Event(); before_reading(again.set); mach_abort(thread)")
    client.finish()
    assert client.do(f"again.wait({PATIENCE}) and not ended.is_set()")
    if half == "SEND":
        client.do("mach.mach_msg(bytearray(100), mach.MACH_RCV_MSG, 0, 100, port)")
    else:
        client.do("mach.mach_msg(bytearray(header(1)), mach.MACH_SEND_MSG, 24, 0, 0)")
    assert client.do(f"ended.wait({PATIENCE}) and raised is None")
    if half == "SEND":
        assert client.do("mach.mach_port_get_receive_status(me, port).msgcount") == 1
        # A message that was given back and sent again has the rights it had: one reference was copied in between.
        assert client.do("mach.mach_port_get_refs(me, port, mach.MACH_PORT_RIGHT_SEND)") == 1


def mach_program(half: str, *, interrupt: bool) -> str:
    """A ``call`` of ``mach_msg`` that waits, as a client makes it in a thread."""
    option = f"mach.MACH_{half}_MSG" + (f" | mach.MACH_{half}_INTERRUPT" if interrupt else "")
    return f"""
from machport.abi import message as layout
me = mach.mach_task_self()
port = mach.mach_port_construct(me, mach.MPO_QLIMIT | mach.MPO_INSERT_SEND_RIGHT, 1)
raised = thread = None
ended = threading.Event()
def header(id): return layout.pack(mach.MACH_MSG_TYPE_COPY_SEND, port, 0, id)
{"mach.mach_msg(bytearray(header(0)), mach.MACH_SEND_MSG, 24, 0, 0)" if half == "SEND" else ""}
def call():
    global raised
    try: mach.mach_msg(bytearray(header(1)) + bytes(76), {option}, 24, 100, port)
    except machport.MachError as error: raised = error
    ended.set()
def in_thread_of_mach(call):
    def run():
        global thread
        thread = threading.get_ident()
        mach.mach_port_names(me)
        before_reading(written.set)
        call()
    written = threading.Event()
    threading.Thread(target=run, daemon=True).start()
    written.wait()
mach_abort = mach.thread_abort
"""


def test_an_interrupt_from_the_keyboard_loses_no_message_that_comes_later(
    new_client: NewClient, task: machport.Task
) -> None:
    client = new_client("client")
    client.begin("before_reading(mark); inbox.receive()")
    client.wait_for_mark()
    client.signal(signal.SIGINT)
    with pytest.raises(AssertionError, match="KeyboardInterrupt"):
        client.finish()
    client.inbox.send(b"later")
    assert client.do(f"inbox.receive({PATIENCE}).body") == b"later"


def test_a_send_once_right_is_used_though_its_sending_was_given_up(new_client: NewClient, task: machport.Task) -> None:
    """The message was published before the interrupt came; the right is not there to be given up again."""
    client, port = new_client("client"), task.allocate()
    client.give("once", port.make_send_once().move())
    client.do("def give_up(): raise KeyboardInterrupt")
    client.do("before_reading(give_up)")
    with pytest.raises(AssertionError, match="KeyboardInterrupt"):
        client.do("once.send(b'published')")
    assert client.do("once.closed")
    assert port.receive(PATIENCE).body == b"published"


@pytest.mark.parametrize("size", [5, 200_000], ids=["short", "long"])
def test_a_message_that_comes_together_with_the_interrupt_is_there_for_the_next_receive(
    new_client: NewClient, task: machport.Task, size: int
) -> None:
    client = new_client("client")
    moved = task.allocate()
    moved.make_send().send(b"inside")
    client.begin("before_reading(mark); inbox.receive()")
    client.wait_for_mark()
    task.calls.mach_port_names(task.name)
    client.stop()
    client.inbox.send(b"first".ljust(size), rights=[moved.move()])
    client.inbox.send(b"second")
    client.signal(signal.SIGINT)
    client.signal(signal.SIGCONT)
    with pytest.raises(AssertionError, match="KeyboardInterrupt"):
        client.finish()
    client.do(f"first = inbox.receive({PATIENCE})")
    assert client.do("first.body.strip()") == b"first"
    assert client.do(f"first.rights[0].receive({PATIENCE}).body") == b"inside"
    assert client.do(f"inbox.receive({PATIENCE}).body") == b"second"


def test_an_interrupt_during_a_call_leaves_no_reply_port_behind(new_client: NewClient, task: machport.Task) -> None:
    client, port = new_client("client"), task.allocate()
    client.give("service", port.make_send().move())
    client.do("before = len(task.calls.mach_port_names(task.name))")
    client.begin("before_reading(lambda: before_reading(mark)); service.call(b'question')")
    client.wait_for_mark()
    client.signal(signal.SIGINT)
    with pytest.raises(AssertionError, match="KeyboardInterrupt"):
        client.finish()
    assert client.do("len(task.calls.mach_port_names(task.name)) - before") == 0
    with port.receive(PATIENCE) as request, pytest.raises(machport.DeadPort):
        request.reply(b"too late")


def test_an_interrupted_send_leaves_no_names_and_no_right_that_is_not_there(
    new_client: NewClient, task: machport.Task
) -> None:
    """N51: what it carried is destroyed, and whoever waits for it is told."""
    client, port = new_client("client"), task.allocate(qlimit=1)
    client.give("right", port.make_send().move())
    client.do("right.send(b'fills the queue'); moved, other = task.allocate(), task.allocate()")
    client.do("before = len(task.calls.mach_port_names(task.name))")
    client.begin("before_reading(mark); right.send(b'', rights=[moved.move()], reply_to=other)")
    client.wait_for_mark()
    client.signal(signal.SIGINT)
    with pytest.raises(AssertionError, match="KeyboardInterrupt"):
        client.finish()
    # One receive right is gone; the other port hears that its question was not asked.
    assert client.do("isinstance(other.receive(5), machport.SendOnceNotification)")
    assert client.do("len(task.calls.mach_port_names(task.name)) - before") == -1
    assert client.do("moved.closed")


def test_the_interpreter_ends_with_everything_open_and_says_nothing(daemon: DaemonProcess) -> None:
    source = """if True:
        import threading, machport
        from machport import mach
        task = machport.Task()
        port, other = task.allocate(), task.allocate(qlimit=0)
        sender, full = port.make_send(), other.make_send()
        pset = task.port_set(task.allocate())
        sender.send(b"unread", rights=[task.allocate().move()])
        mach.mach_port_allocate(mach.mach_task_self(), mach.MACH_PORT_RIGHT_RECEIVE)
        held = [port.receive()]
        receive = lambda: held.append(port.receive())
        for call in (receive, pset.receive, lambda: full.send(b"blocks"), lambda: sender.call(b"blocks")):
            threading.Thread(target=call, daemon=True).start()
        file = task.fileport(0)
    """
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", source],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stderr == ""


def test_a_timeout_comes_though_thousands_before_it_were_not_needed(task: machport.Task) -> None:
    port = task.allocate()
    sender, thread = port.make_send(), threading.Thread(target=lambda: [port.receive(1000) for _ in range(3000)])
    thread.start()
    for _ in range(3000):
        sender.send()
    thread.join(PATIENCE)
    with pytest.raises(machport.TimedOut):
        port.receive(0.01)


def test_threads_that_come_and_go_leave_no_reply_ports(task: machport.Task) -> None:
    port = task.allocate()
    sender = port.make_send()

    def call() -> None:
        assert sender.call(b"question", timeout=PATIENCE).body == b"answer"

    before = 0
    for _ in range(10):
        caller = threading.Thread(target=call)
        caller.start()
        port.receive(PATIENCE).reply(b"answer")
        caller.join()
        before = before or len(task.calls.mach_port_names(task.name))
    assert len(task.calls.mach_port_names(task.name)) == before


def test_threads_that_come_and_go_leave_no_descriptors(daemon: DaemonProcess, task: machport.Task) -> None:
    port = task.allocate()
    before = daemon.descriptors(), len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        thread = threading.Thread(target=port.make_send)
        thread.start()
        thread.join()
    task.calls.mach_port_names(task.name)
    assert (daemon.descriptors(), len(os.listdir("/proc/self/fd"))) == before


def test_the_longest_timeout_is_as_good_as_any(task: machport.Task, new_client: NewClient) -> None:
    """M2: 32 bits of milliseconds, which is more than a system call counts to."""
    client, port = new_client("client"), task.allocate()
    sender = port.make_send()
    client.give("port", port.move())
    client.begin("before_reading(mark); message = port.receive(0xFFFFFFFF / 1000)")
    client.wait_for_mark()
    assert sender.task.allocate().status().msgcount == 0  # the daemon has slept and woken up since
    sender.send(b"in time")
    client.finish()
    client.do("assert message.body == b'in time'")
