"""Many messages, and many ports, at a time: what one by one would do, in the same order, and nothing lost."""

from __future__ import annotations

import os
import signal
import threading
from array import array
from collections.abc import Callable
from concurrent.futures import Future

import pytest
from actors import PATIENCE, Client, DaemonProcess

import machport
from machport import mach
from machport.abi import traps as t

NewClient = Callable[[str], Client]

#: Bodies of every way to travel: copied, written beside the head, in wide rings, by the socket.
SIZES = [0, 1, 3, 64, 4091, 4092, 4095, 4096, 4100, 9000, 70_000, 300_000, 1_200_000, 5, 0]
#: More than the narrow ring has room for.
BODIES = [b"%04d" % number * 25 for number in range(500)]


def in_thread(call: Callable[[], object]) -> Future[object]:
    """What a thread of its own comes to."""
    future: Future[object] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def names(task: machport.Task) -> list[tuple[int, int]]:
    return sorted(task.calls.mach_port_names(task.name))


def wait_for_messages(port: machport.ReceiveRight, count: int) -> None:
    while port.status().msgcount < count:
        pass


# send_many


def test_messages_sent_together_arrive_in_order(task: machport.Task) -> None:
    """M15."""
    port = task.allocate(qlimit=len(BODIES))

    assert port.make_send().send_many(BODIES, id=7) == len(BODIES)

    received = [port.receive(0) for _ in BODIES]
    assert [message.body for message in received] == BODIES
    assert {message.id for message in received} == {7}
    assert [message.seqno for message in received] == list(range(len(BODIES)))


def test_messages_of_all_sizes_are_sent_together(task: machport.Task) -> None:
    port = task.allocate(qlimit=100)
    bodies = [os.urandom(size) for size in SIZES]

    assert port.make_send().send_many(bodies) == len(bodies)

    assert [port.receive(0).body for _ in bodies] == bodies


@pytest.mark.parametrize("size", [10, 5000])
def test_bodies_are_any_bytes_and_may_be_any_iterable(task: machport.Task, size: int) -> None:
    port = task.allocate()
    data = os.urandom(size * 4)
    words = array("I", data)

    assert port.make_send().send_many(kind(data) for kind in (bytes, bytearray, memoryview)) == 3
    assert port.make_send().send_many([memoryview(words), memoryview(data)[1:-1]]) == 2

    assert [port.receive(0).body for _ in range(5)] == [data, data, data, data, data[1:-1]]


def test_sending_no_messages_does_nothing(task: machport.Task) -> None:
    port = task.allocate()
    assert port.make_send().send_many([]) == 0
    assert port.status().msgcount == 0


@pytest.mark.parametrize("wrong", [bytes(60 * 1024 * 1024), "text", 5], ids=["too-large", "text", "number"])
def test_a_body_that_cannot_be_sent_keeps_all_from_being_sent(task: machport.Task, wrong: bytes) -> None:
    port = task.allocate()
    with pytest.raises((machport.MessageTooLarge, TypeError)):
        port.make_send().send_many([b"first", wrong])
    assert port.status().msgcount == 0


def test_many_messages_wait_for_room_and_none_is_lost(task: machport.Task) -> None:
    """M11, M14."""
    port = task.allocate(qlimit=2)
    sender = port.make_send()
    sent = in_thread(lambda: sender.send_many(BODIES))

    received = []
    for _ in BODIES:
        assert port.status().msgcount <= 2
        received.append(port.receive(PATIENCE).body)

    assert received == BODIES
    assert sent.result(PATIENCE) == len(BODIES)


def test_sending_many_to_a_dead_port_says_that_none_was_sent(task: machport.Task) -> None:
    port = task.allocate()
    sender = port.make_send()
    port.close()

    with pytest.raises(machport.DeadPort) as caught:
        sender.send_many([b"", b"", b""])
    assert str(caught.value).startswith(f"send_many in task {task.label} on name {sender.name:#x}: 0 of 3 messages")
    assert caught.value.code == mach.MACH_SEND_INVALID_DEST


def test_a_port_that_dies_meanwhile_says_how_many_messages_were_sent(task: machport.Task) -> None:
    """M16: one that waits when the port dies counts as sent."""
    port = task.allocate(qlimit=3)
    sender = port.make_send()
    sent = in_thread(lambda: sender.send_many(BODIES))
    wait_for_messages(port, 3)
    port.close()

    with pytest.raises(machport.DeadPort, match=f"[34] of {len(BODIES)} messages were sent"):
        sent.result(PATIENCE)


def test_sending_many_leaves_one_reference_of_the_right(task: machport.Task) -> None:
    port = task.allocate(qlimit=100)
    sender = port.make_send()
    sender.send_many([b""] * 100)

    assert task.calls.mach_port_get_refs(task.name, sender.name, mach.MACH_PORT_RIGHT_SEND) == 1


def test_an_interrupted_sending_of_many_goes_on_and_nothing_is_lost(task: machport.Task, new_client: NewClient) -> None:
    """M36: the daemon sends what came back again, in its place."""
    client, port = new_client("client"), task.allocate(qlimit=1)
    client.give("right", port.make_send().move())
    client.do("thread = threading.get_ident()")
    client.do(
        "def interrupt():\n    task.calls.mach_port_names(task.name)\n    task.calls.thread_abort(thread)\n    mark()"
    )
    client.do("before_sleeping(threading.Thread(target=interrupt).start)")
    client.begin("right.send_many([b'%d' % number for number in range(10)])")
    client.wait_for_mark()

    assert [port.receive(PATIENCE).body for _ in range(10)] == [b"%d" % number for number in range(10)]
    assert client.finish() == 10
    assert client.do("task.calls.mach_port_get_refs(task.name, right.name, mach.MACH_PORT_RIGHT_SEND)") == 1


def test_a_signal_while_many_are_sent_is_handled_and_the_sending_goes_on(
    task: machport.Task, new_client: NewClient
) -> None:
    client, port = new_client("client"), task.allocate(qlimit=1)
    client.give("right", port.make_send().move())
    client.do("handled = []; signal.signal(signal.SIGUSR1, lambda *_: (handled.append(1), mark()))")
    client.do("before_sleeping(mark)")
    client.begin("right.send_many([b'%d' % number for number in range(10)])")
    client.wait_for_mark()
    client.signal(signal.SIGUSR1)
    client.wait_for_mark()

    assert [port.receive(PATIENCE).body for _ in range(10)] == [b"%d" % number for number in range(10)]
    assert client.finish() == 10
    assert client.do("handled") == [1]


# receive_many


def test_receiving_many_takes_what_is_there_in_order(task: machport.Task) -> None:
    port = task.allocate(qlimit=10)
    port.make_send().send_many([b"%d" % number for number in range(10)])

    assert [message.body for message in port.receive_many()] == [b"%d" % number for number in range(10)]
    assert port.status().msgcount == 0


def test_a_limit_leaves_the_others_there(task: machport.Task) -> None:
    port = task.allocate(qlimit=10)
    port.make_send().send_many([b"%d" % number for number in range(5)])

    assert [message.body for message in port.receive_many(2)] == [b"0", b"1"]
    assert [message.body for message in port.receive_many(1)] == [b"2"]
    assert [message.body for message in port.receive_many(1 << 40)] == [b"3", b"4"]


def test_a_limit_is_one_or_more(task: machport.Task) -> None:
    port = task.allocate()
    port.make_send().send(b"there")
    for limit in (0, -1):
        with pytest.raises(machport.InvalidArgument, match="1 or more"):
            port.receive_many(limit)
    assert port.status().msgcount == 1


@pytest.mark.parametrize("timeout", [0, 0.001])
def test_receiving_many_ends_when_none_comes_in_time(task: machport.Task, timeout: float) -> None:
    port = task.allocate()
    with pytest.raises(machport.TimedOut) as caught:
        port.receive_many(timeout=timeout)
    assert caught.value.code == mach.MACH_RCV_TIMED_OUT
    assert "receive_many" in str(caught.value)


@pytest.mark.parametrize("timeout", [0, PATIENCE, None])
def test_messages_that_are_there_need_no_time(task: machport.Task, timeout: float | None) -> None:
    port = task.allocate()
    port.make_send().send_many([b"one", b"two"])
    assert [message.body for message in port.receive_many(timeout=timeout)] == [b"one", b"two"]


@pytest.mark.parametrize("timeout", [None, PATIENCE])
def test_receiving_many_waits_for_the_first(task: machport.Task, new_client: NewClient, timeout: float | None) -> None:
    client, port = new_client("client"), task.allocate()
    sender = port.make_send()
    client.give("port", port.move())
    client.do("before_sleeping(mark)")
    client.begin(f"[message.body for message in port.receive_many(timeout={timeout})]")
    client.wait_for_mark()
    sender.send(b"first")
    assert client.finish() == [b"first"]


def test_a_port_that_dies_wakes_who_waits_for_many(task: machport.Task) -> None:
    port = task.allocate()
    received = in_thread(port.receive_many)
    task.calls.mach_port_names(task.name)
    port.close()
    with pytest.raises((machport.DeadPort, machport.InvalidName, machport.ClosedRight)):
        received.result(PATIENCE)


def test_a_set_gives_many_messages_in_the_order_in_which_they_came(task: machport.Task) -> None:
    """P34."""
    first, second = task.allocate(qlimit=10), task.allocate(qlimit=10)
    pset = task.port_set(first, second)
    for number in range(5):
        (first, second)[number % 2].make_send().send(b"%d" % number)
    received = pset.receive_many()

    assert [message.body for message in received] == [b"%d" % number for number in range(5)]
    assert [message.port for message in received] == [(first, second)[number % 2].name for number in range(5)]


def test_a_member_of_a_set_gives_nothing_and_says_why(task: machport.Task) -> None:
    port = task.allocate()
    with task.port_set(port), pytest.raises(machport.InvalidRight, match="MACH_RCV_IN_SET"):
        port.receive_many()


def test_each_of_many_messages_brings_its_rights_and_memory(task: machport.Task) -> None:
    port, answers = task.allocate(qlimit=30), task.allocate(qlimit=30)
    carried = task.allocate_many(20)
    for number, right in enumerate(carried):
        right.make_send().send(b"inside %d" % number)
        port.make_send().send(b"", rights=[right.move()], memory=[b"%d" % number * 3000], reply_to=answers)

    for number, message in enumerate(port.receive_many()):
        assert isinstance(message.rights[0], machport.ReceiveRight)
        assert message.rights[0].receive(0).body == b"inside %d" % number
        assert message.memory == [b"%d" % number * 3000]
        message.reply(b"%d" % number)
    assert [answer.body for answer in answers.receive_many()] == [b"%d" % number for number in range(20)]


def test_notifications_come_among_messages_in_their_order(task: machport.Task) -> None:
    """M15."""
    port, watched = task.allocate(), task.allocate()
    sender, dying = port.make_send(), watched.make_send()
    dying.request_dead_name(port)
    sender.send(b"before")
    watched.close()
    sender.send(b"after")

    received = port.receive_many()
    assert [type(message) for message in received] == [
        machport.Message,
        machport.DeadNameNotification,
        machport.Message,
    ]
    assert (received[0].body, received[2].body) == (b"before", b"after")
    received[1].close()


def test_more_messages_than_the_ring_has_room_for_come_in_order(task: machport.Task) -> None:
    port = task.allocate(qlimit=len(BODIES))
    port.make_send().send_many(BODIES)

    received: list[machport.Message] = []
    while len(received) < len(BODIES):
        received += port.receive_many(len(BODIES), 0)

    assert [message.body for message in received] == BODIES
    assert [message.seqno for message in received] == list(range(len(BODIES)))


def test_messages_of_all_sizes_are_received_together(task: machport.Task) -> None:
    port = task.allocate(qlimit=100)
    bodies = [os.urandom(size) for size in SIZES * 3]
    port.make_send().send_many(bodies)

    received: list[machport.Message] = []
    while len(received) < len(bodies):
        received += port.receive_many(timeout=0)

    assert [message.body for message in received] == bodies


def test_a_thread_that_received_many_calls_on(task: machport.Task) -> None:
    """Its rings are in order after long messages, short ones and none."""
    port = task.allocate(qlimit=100)
    sender = port.make_send()
    for bodies in ([bytes(300_000)] * 3, [b""] * 100, [bytes(40_000), b"", bytes(10_000)]):
        sender.send_many(bodies)
        left = len(bodies)
        while left:
            left -= len(port.receive_many(timeout=0))
        with pytest.raises(machport.TimedOut):
            port.receive_many(timeout=0)
        assert port.status().msgcount == 0


@pytest.mark.parametrize("size", [10, 200, 9000, 200_000])
def test_messages_that_a_killed_receiver_did_not_read_go_back_in_order(
    task: machport.Task, new_client: NewClient, size: int
) -> None:
    """Promise 3."""
    server, port, back = new_client("server"), task.allocate(qlimit=200), task.allocate()
    sender, bodies = port.make_send(), [b"%04d" % number + bytes(size) for number in range(200 if size < 9000 else 20)]
    sender.send_many(bodies)
    port.request_port_destroyed(back)
    server.give("port", port.move())
    server.begin("after_writing(lambda: os.kill(os.getpid(), signal.SIGSTOP)); port.receive_many(1000)")
    os.waitid(os.P_PID, server.pid, os.WSTOPPED | os.WNOWAIT)
    task.calls.mach_port_names(task.name)
    server.kill()

    notice = back.receive(PATIENCE)
    assert isinstance(notice, machport.PortDestroyedNotification)
    assert notice.right.status().msgcount == len(bodies)
    assert [notice.right.receive(0).body for _ in bodies] == bodies


def test_rights_in_messages_that_a_killed_receiver_did_not_read_are_alive(
    task: machport.Task, new_client: NewClient
) -> None:
    """Promise 3."""
    server, port, back = new_client("server"), task.allocate(qlimit=50), task.allocate()
    sender, carried = port.make_send(), task.allocate_many(50)
    for number, right in enumerate(carried):
        right.make_send().send(b"inside %d" % number)
        sender.send(rights=[right.move()])
    port.request_port_destroyed(back)
    server.give("port", port.move())
    server.begin("after_writing(lambda: os.kill(os.getpid(), signal.SIGSTOP)); port.receive_many(1000)")
    os.waitid(os.P_PID, server.pid, os.WSTOPPED | os.WNOWAIT)
    task.calls.mach_port_names(task.name)
    server.kill()

    notice = back.receive(PATIENCE)
    assert isinstance(notice, machport.PortDestroyedNotification)
    for number in range(50):
        inner = notice.right.receive(0).rights[0]
        assert isinstance(inner, machport.ReceiveRight)
        assert inner.receive(0).body == b"inside %d" % number


def test_a_message_that_there_is_no_descriptor_for_is_back_in_its_queue_with_those_behind_it(
    task: machport.Task, new_client: NewClient
) -> None:
    """Promise 4: those before it are given, and it is refused when it is the next."""
    client, port = new_client("client"), task.allocate(qlimit=10)
    sender = port.make_send()
    client.give("port", port.move())
    bodies = [b"short", b"long" * 300_000, b"behind"]
    sender.send_many(bodies)
    client.do(
        "import resource\n"
        "limits, fill = resource.getrlimit(resource.RLIMIT_NOFILE), []\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))\n"
        "with contextlib.suppress(OSError):\n"
        "    while True: fill.append(os.open(os.devnull, os.O_RDONLY))"
    )
    assert client.do("[message.body for message in port.receive_many()]") == bodies[:1]
    client.do("for number in fill: os.close(number)")
    client.do("fill = []; received = port.receive_many()")
    client.do("while len(received) < 2: received += port.receive_many()")
    assert client.do("[message.body for message in received]") == bodies[1:]


def test_an_interrupted_wait_for_many_goes_on(task: machport.Task, new_client: NewClient) -> None:
    """M36."""
    client, port = new_client("client"), task.allocate()
    sender = port.make_send()
    client.give("port", port.move())
    client.begin("[message.body for message in interrupt_when_it_sleeps(task, port.receive_many)]")
    client.wait_for_mark()
    sender.send(b"at last")
    assert client.finish() == [b"at last"]


def test_an_interrupt_from_the_keyboard_ends_the_wait_for_many_and_loses_nothing(
    task: machport.Task, new_client: NewClient
) -> None:
    client, port = new_client("client"), task.allocate()
    sender = port.make_send()
    client.give("port", port.move())
    client.begin("before_sleeping(mark); port.receive_many()")
    client.wait_for_mark()
    client.signal(signal.SIGINT)
    with pytest.raises(AssertionError, match="KeyboardInterrupt"):
        client.finish()
    sender.send_many([b"one", b"two"])
    assert client.do("[message.body for message in port.receive_many()]") == [b"one", b"two"]


# The views of a message


@pytest.mark.parametrize("size", [0, 10, 5000, 300_000])
@pytest.mark.parametrize("many", [True, False], ids=["many", "one"])
@pytest.mark.parametrize("carried", [0, 1], ids=["plain", "with-rights"])
def test_views_are_what_came_and_cannot_be_written(task: machport.Task, size: int, many: bool, carried: int) -> None:
    port, body, region = task.allocate(), os.urandom(size), os.urandom(size)
    rights = [task.allocate().move() for _ in range(carried)]
    port.make_send().send(body, rights=rights, memory=[region] * carried)
    message = port.receive_many()[0] if many else port.receive()

    assert message.view == message.body == body
    assert message.view.readonly
    assert message.memory == [region] * carried
    assert all(view.readonly for view in message.memory)


def test_views_outlive_their_message(task: machport.Task) -> None:
    port = task.allocate()
    port.make_send().send_many([b"short", b"long" * 10_000])
    views: list[memoryview] = []
    left = 2
    while left:
        messages = port.receive_many(timeout=0)
        views += [message.view for message in messages]
        left -= len(messages)
        del messages
    port.make_send().send_many([b"SHORT", b"LONG" * 10_000])
    port.receive(0)
    port.receive(0)
    assert [bytes(view) for view in views] == [b"short", b"long" * 10_000]


# Many ports


def test_many_ports_have_names_of_their_own_and_can_be_used(task: machport.Task) -> None:
    before = names(task)
    ports = task.allocate_many(1000)

    assert len({port.name for port in ports}) == 1000
    for port in (ports[0], ports[500], ports[-1]):
        port.make_send().send(b"to this one")
        assert port.receive(0).body == b"to this one"
    assert len(names(task)) == len(before) + 1000


@pytest.mark.parametrize("count", [0, 1])
def test_no_port_and_one_port_are_many(task: machport.Task, count: int) -> None:
    before = names(task)
    ports = task.allocate_many(count)
    assert [type(port) for port in ports] == [machport.ReceiveRight] * count
    task.close_many(ports)
    assert names(task) == before


def test_a_count_of_ports_is_not_negative(task: machport.Task) -> None:
    with pytest.raises(machport.InvalidArgument, match="0 or more"):
        task.allocate_many(-1)


def test_a_hundred_thousand_ports_come_and_go(task: machport.Task) -> None:
    before = names(task)
    ports = task.allocate_many(100_000)
    assert len({port.name for port in ports}) == 100_000
    task.close_many(ports)
    assert all(port.closed for port in ports)
    assert names(task) == before


def test_rights_of_all_kinds_are_closed_together(task: machport.Task) -> None:
    """Promise 1: whoever watched one of them is told."""
    before = names(task)
    port, dying, watched, answers = task.allocate_many(4)
    dead = dying.make_send()
    dying.close()
    once = answers.make_send_once()
    carrier = port.make_send()
    carrier.send(rights=[watched.make_send().move()])
    watched_name = watched.name
    pset = task.port_set(watched)
    nobody = machport.DeadName(task, mach.MACH_PORT_DEAD)
    message = port.receive(0)

    task.close_many([carrier, port, dead, once, nobody, pset, message.rights[0], watched])  # type: ignore[list-item]

    assert isinstance(answers.receive(0), machport.SendOnceNotification)
    assert watched_name not in dict(names(task))
    answers.close()
    assert names(task) == before


def test_each_of_many_objects_gives_up_its_own_reference_once(task: machport.Task) -> None:
    port = task.allocate()
    first, second, third = (port.make_send() for _ in range(3))
    third.close()
    task.close_many([first, first, second, third])
    assert port.status().srights == 0

    kept = port.make_send()
    task.close_many([first, second, third])
    kept.send(b"still there")
    assert port.receive(0).body == b"still there"


def test_rights_of_another_task_and_what_is_no_right_are_refused_before_any_is_closed(
    daemon: DaemonProcess, task: machport.Task
) -> None:
    port = task.allocate()
    with machport.Task(label="other") as other:
        foreign = other.allocate()
        for wrong in (foreign, None, port.name):
            with pytest.raises(machport.InvalidArgument):
                task.close_many([port, wrong])  # type: ignore[list-item]
        assert not foreign.closed
    assert port.status().msgcount == 0


def test_one_that_is_refused_keeps_no_other_from_being_closed(task: machport.Task) -> None:
    before = names(task)
    ports = task.allocate_many(3)
    sender = task.allocate_many(1)[0]
    right = sender.make_send()
    task.calls.mach_port_destroy(task.name, ports[1].name)  # behind the object's back

    with pytest.raises(machport.InvalidName) as caught:
        task.close_many([*ports, right, sender])
    assert caught.value.name == ports[1]._name
    assert all(gone.closed for gone in [*ports, right, sender])
    assert names(task) == before


def test_many_rights_close_quietly_when_the_daemon_is_lost(daemon: DaemonProcess, task: machport.Task) -> None:
    ports = task.allocate_many(3)
    rights = [*ports, *(port.make_send() for port in ports)]
    daemon.kill()
    task.close_many(rights)
    assert all(right.closed for right in rights)
    with pytest.raises(machport.DaemonLost):
        task.allocate_many(2)


def test_many_rights_close_quietly_after_their_task(daemon: DaemonProcess) -> None:
    task = machport.Task(label="ended")
    ports = task.allocate_many(3)
    task.close()
    task.close_many(ports)
    assert all(port.closed for port in ports)


# Calls


def test_the_first_of_many_calls_that_is_refused_is_raised_and_all_are_carried_out(task: machport.Task) -> None:
    first, second = task.allocate(), task.allocate()
    calls = [(task.name, name) for name in (first.name, 0x123456, second.name, 0x234567)]
    with pytest.raises(machport.InvalidName) as caught:
        task.calls.many(t.DESTROY, calls)
    assert caught.value.name == 0x123456
    assert caught.value.call == "mach_port_destroy"
    assert not {first.name, second.name} & set(dict(names(task)))


def test_many_calls_answer_in_order(task: machport.Task) -> None:
    ports = [task.allocate(qlimit=number) for number in range(1, 6)]
    flavor = mach.MACH_PORT_LIMITS_INFO
    answers = task.calls.many(t.GET_ATTRIBUTES, [(task.name, port.name, flavor, 8) for port in ports])
    assert [words[0] for _, words in answers] == [1, 2, 3, 4, 5]
    assert task.calls.many(t.TYPE, []) == []


def test_answers_that_fill_the_ring_exactly_when_the_queue_is_empty_end_the_call_once(
    task: machport.Task, new_client: NewClient
) -> None:
    """A sender and a receiver at full speed: the ring of answers is full, and the queue empty, at any moment."""
    client, count = new_client("client"), 30_000
    port = task.allocate(qlimit=1024)
    client.give("right", port.make_send().move())
    client.begin(f"[right.send_many([b'%d' % n for n in range(at, at + 100)]) for at in range(0, {count}, 100)][-1]")

    received: list[bytes] = []
    while len(received) < count:
        received += [message.body for message in port.receive_many(256, PATIENCE)]

    assert client.finish() == 100
    assert received == [b"%d" % number for number in range(count)]
