"""Serving: each request gets its one answer, whatever becomes of the handler, of the port, and of whoever asked."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial

import pytest
from actors import PATIENCE, Client, DaemonProcess

import machport
from machport import mach
from machport.abi import message as layout
from machport.abi import traps as t

NewClient = Callable[[str], Client]
Answer = Callable[[machport.Message], bytes | bytearray | memoryview | None]


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


def after(action: Callable[[], object], body: bytes) -> Answer:
    """A handler that does something, and then answers."""

    def answer(request: machport.Message) -> bytes:
        action()
        return body

    return answer


def upper(request: machport.Message) -> bytes:
    return request.body.upper()


def names(task: machport.Task) -> list[tuple[int, int]]:
    return sorted(task.calls.mach_port_names(task.name))


def request_to(port: machport.ReceiveRight, answers: machport.ReceiveRight, body: bytes = b"") -> machport.Message:
    """A request that came to ``port`` and is to be answered to ``answers``."""
    port.make_send().send(body, id=5, reply_to=answers)
    return port.receive(PATIENCE)


@pytest.fixture
def port(task: machport.Task) -> machport.ReceiveRight:
    return task.allocate(qlimit=100)


@pytest.fixture
def answers(task: machport.Task) -> machport.ReceiveRight:
    return task.allocate()


@pytest.fixture
def serving(port: machport.ReceiveRight) -> Iterator[Callable[[Answer], Future[object]]]:
    """Lets a thread serve ``port`` until the test has closed it, or until the end of the test."""
    served: list[Future[object]] = []

    def begin(answer: Answer) -> Future[object]:
        served.append(in_thread(lambda: port.serve(answer)))
        return served[-1]

    yield begin
    port.close()
    for future in served:
        future.exception(PATIENCE)


Serving = Callable[[Answer], Future[object]]

# serve


def test_serve_answers_each_request_with_what_is_returned(port: machport.ReceiveRight, serving: Serving) -> None:
    served, sender = serving(upper), port.make_send()

    assert [sender.call(body, id=3).body for body in (b"a", b"", b"long" * 5000)] == [b"A", b"", b"LONG" * 5000]
    assert sender.call(b"", id=0xFFFFFFFF).id == 99
    port.close()
    assert served.result(PATIENCE) is None


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_an_answer_is_any_bytes(port: machport.ReceiveRight, serving: Serving, kind: type) -> None:
    serving(lambda request: kind(request.body))
    assert port.make_send().call(b"question").body == b"question"


def test_requests_that_wait_are_answered_in_their_order(
    port: machport.ReceiveRight, answers: machport.ReceiveRight, serving: Serving
) -> None:
    sender = port.make_send()
    for number in range(20):
        sender.send(b"%d" % number, reply_to=answers)
    serving(upper)

    assert [answers.receive(PATIENCE).body for _ in range(20)] == [b"%d" % number for number in range(20)]


def test_messages_that_nobody_waits_for_are_served_and_not_answered(
    task: machport.Task, port: machport.ReceiveRight, serving: Serving
) -> None:
    taken: list[bytes] = []

    def answer(message: machport.Message) -> bytes:
        taken.append(message.body)
        return b"answer"

    before = names(task)
    served, sender = serving(answer), port.make_send()
    sender.send_many([b"one", b"two"])
    assert sender.call(b"three").body == b"answer"
    sender.close()
    assert taken == [b"one", b"two", b"three"]
    port.close()
    served.result(PATIENCE)
    # One reply port is kept for the next call.
    assert len(names(task)) == len(before)


def test_notifications_are_served_as_they_come(
    task: machport.Task, port: machport.ReceiveRight, serving: Serving
) -> None:
    kinds: list[type] = []
    watched = task.allocate()
    right = watched.make_send()
    right.request_dead_name(port)

    def answer(message: machport.Message) -> bytes:
        kinds.append(type(message))
        return b"nobody gets this"

    serving(answer)
    watched.close()
    assert port.make_send().call(b"").body == b"nobody gets this"

    assert kinds == [machport.DeadNameNotification, machport.Message]
    # The reference that came with the notification was given back.
    assert task.calls.mach_port_get_refs(task.name, right.name, mach.MACH_PORT_RIGHT_DEAD_NAME) == 1


def test_a_message_that_none_is_returned_for_stays_the_handlers(
    task: machport.Task, port: machport.ReceiveRight, answers: machport.ReceiveRight, serving: Serving
) -> None:
    kept: list[machport.Message] = []
    serving(lambda request: kept.append(request) if request.rights else b"at once")
    sender, carried = port.make_send(), task.allocate()
    carried.make_send().send(b"inside")
    sender.send(rights=[carried.move()], reply_to=answers)
    assert sender.call(b"").body == b"at once"

    inner = kept[0].rights[0]
    assert isinstance(inner, machport.ReceiveRight)
    assert inner.receive(0).body == b"inside"
    kept[0].reply(b"later")
    assert answers.receive(PATIENCE).body == b"later"


def test_a_handler_may_reply_by_itself(port: machport.ReceiveRight, task: machport.Task, serving: Serving) -> None:
    made = task.allocate()
    serving(lambda request: request.reply(b"with a right", rights=[made.make_send().move()]))

    with port.make_send().call(b"") as answer:
        assert answer.body == b"with a right"
        assert isinstance(answer.rights[0], machport.SendRight)


def test_rights_that_an_answered_request_brought_are_given_up_before_the_next_is_waited_for(
    task: machport.Task, port: machport.ReceiveRight, answers: machport.ReceiveRight, serving: Serving
) -> None:
    """Whoever sent them hears of it, and the server has nothing left of them."""
    serving(upper)
    carried, once = task.allocate(), answers.make_send_once()
    carried.make_send().send(b"", reply_to=answers)
    assert port.make_send().call(b"x", rights=[carried.move(), once.move()]).body == b"X"

    assert {type(answers.receive(PATIENCE)) for _ in range(2)} == {machport.SendOnceNotification}


def test_rights_that_a_handler_takes_are_its_own(
    task: machport.Task, port: machport.ReceiveRight, serving: Serving
) -> None:
    taken: list[machport.Right | None] = []

    def subscribe(request: machport.Message) -> bytes:
        taken.append(request.rights[0])
        request.rights[0] = None
        return b"subscribed"

    serving(subscribe)
    news = task.allocate()
    assert port.make_send().call(b"", rights=[news.make_send().move()]).body == b"subscribed"
    assert isinstance(taken[0], machport.SendRight)
    taken[0].send(b"news")
    assert news.receive(PATIENCE).body == b"news"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, machport.DeadPort, machport.ServerDied])
def test_what_a_handler_raises_ends_the_serving_and_tells_who_asked(
    port: machport.ReceiveRight, serving: Serving, error: type[BaseException]
) -> None:
    """Promise 1."""

    def fail(request: machport.Message) -> bytes:
        raise error("on purpose")

    served = serving(fail)
    with pytest.raises(machport.ServerDied) as caught:
        port.make_send().call(b"", timeout=PATIENCE)
    assert caught.value.code == mach.MIG_SERVER_DIED
    with pytest.raises(error, match="on purpose"):
        served.result(PATIENCE)
    assert not port.closed


@pytest.mark.parametrize("wrong", ["text", 5, bytes(60 * 1024 * 1024)], ids=["text", "number", "too-large"])
@pytest.mark.parametrize("closing", [False, True], ids=["open", "closing"])
def test_an_answer_that_cannot_be_sent_ends_the_serving_and_tells_who_asked(
    port: machport.ReceiveRight, serving: Serving, wrong: bytes, closing: bool
) -> None:
    """Promise 1."""

    def answer(request: machport.Message) -> bytes:
        if closing:
            port.close()
        return wrong

    sender = port.make_send()
    served = serving(answer)
    with pytest.raises(machport.ServerDied):
        sender.call(b"", timeout=PATIENCE)
    with pytest.raises((TypeError, machport.MessageTooLarge)):
        served.result(PATIENCE)


@pytest.mark.parametrize("how", ["reply", "close"])
def test_an_answer_to_what_was_answered_or_closed_is_a_mistake_that_ends_the_serving(
    port: machport.ReceiveRight, serving: Serving, how: str
) -> None:
    """It could not be sent, and to drop it would hide that."""

    def answer(request: machport.Message) -> bytes:
        getattr(request, how)()
        return b"again"

    served = serving(answer)
    if how == "reply":
        assert port.make_send().call(b"", timeout=PATIENCE).body == b""
    else:
        with pytest.raises(machport.ServerDied):
            port.make_send().call(b"", timeout=PATIENCE)
    with pytest.raises(machport.ClosedRight, match="answered or closed already"):
        served.result(PATIENCE)


def test_a_handler_that_closes_the_port_ends_the_serving_and_answers(
    port: machport.ReceiveRight, serving: Serving
) -> None:
    sender = port.make_send()
    served = serving(after(port.close, b"goodbye"))
    assert sender.call(b"", timeout=PATIENCE).body == b"goodbye"
    assert served.result(PATIENCE) is None


def test_a_handler_that_moves_the_port_away_ends_the_serving_and_answers(
    task: machport.Task, port: machport.ReceiveRight, serving: Serving
) -> None:
    successor = task.allocate()
    to_successor, sender = successor.make_send(), port.make_send()
    served = serving(after(lambda: to_successor.send(rights=[port.move()]), b"moved"))
    assert sender.call(b"", timeout=PATIENCE).body == b"moved"
    assert served.result(PATIENCE) is None

    with successor.receive(PATIENCE) as message:
        sender.send(b"for the successor")
        moved = message.rights[0]
        assert isinstance(moved, machport.ReceiveRight)
        assert moved.receive(PATIENCE).body == b"for the successor"


@pytest.mark.parametrize("how", ["serve", "for"])
def test_a_port_that_went_by_another_object_ends_the_serving(
    task: machport.Task, port: machport.ReceiveRight, how: str
) -> None:
    port.make_send().send(b"one")
    other = machport.ReceiveRight(task, port.name)
    if how == "serve":
        port.serve(lambda request: other.close())
    else:
        for _ in port:
            other.close()


@pytest.mark.parametrize("answer", [b"answer", None])
def test_closing_the_port_from_another_thread_ends_the_serving_at_any_moment(
    task: machport.Task, answers: machport.ReceiveRight, answer: bytes | None
) -> None:
    for _ in range(100):
        port, begun = task.allocate(qlimit=100), threading.Event()
        with port.make_send() as sender:
            for _ in range(20):
                sender.send(reply_to=answers)
            served = in_thread(partial(port.serve, after_setting(begun, answer)))
            begun.wait(PATIENCE)
            port.close()
            assert served.result(PATIENCE) is None
    answers.close()


def after_setting(event: threading.Event, body: bytes | None) -> Answer:
    def answer(request: machport.Message) -> bytes | None:
        event.set()
        return body

    return answer


def test_serving_a_right_that_was_closed_before_says_so(port: machport.ReceiveRight) -> None:
    port.close()
    with pytest.raises(machport.ClosedRight, match="was closed"):
        port.serve(upper)
    assert list(port) == []


def test_a_set_is_served(task: machport.Task) -> None:
    ports = task.allocate_many(3)
    pset = task.port_set(*ports)
    served = in_thread(lambda: pset.serve(lambda request: b"%d" % request.port))
    assert [port.make_send().call(b"").body for port in ports] == [b"%d" % port.name for port in ports]
    pset.close()
    assert served.result(PATIENCE) is None


def test_a_client_that_died_before_its_answer_does_not_end_the_serving(
    port: machport.ReceiveRight, new_client: NewClient, serving: Serving
) -> None:
    client = new_client("client")
    died: list[bool] = []

    def answer(request: machport.Message) -> bytes:
        if request.body == b"mortal":
            client.die()
            died.append(True)
        return b"answer"

    client.give("right", port.make_send().move())
    serving(answer)
    client.begin("right.call(b'mortal')")
    assert port.make_send().call(b"", timeout=PATIENCE).body == b"answer"
    while not died:
        port.make_send().call(b"", timeout=PATIENCE)
    assert port.make_send().call(b"", timeout=PATIENCE).body == b"answer"


def test_a_client_that_died_before_its_request_was_received_does_not_end_the_serving(
    task: machport.Task, port: machport.ReceiveRight, serving: Serving
) -> None:
    """P10: the right to answer by is a dead name then."""
    gone = task.allocate()
    sender = port.make_send()
    sender.send(b"", reply_to=gone)
    gone.close()
    serving(upper)
    assert sender.call(b"next", timeout=PATIENCE).body == b"NEXT"


def test_serving_gives_a_dead_client_up_in_the_last_answer_too(
    task: machport.Task, port: machport.ReceiveRight, answers: machport.ReceiveRight
) -> None:
    port.make_send().send(b"", reply_to=answers)
    port.serve(after(lambda: task.close_many([answers, port]), b""))
    assert answers.closed


def test_an_interrupted_serving_goes_on(task: machport.Task, new_client: NewClient) -> None:
    """M36."""
    server, port = new_client("server"), task.allocate()
    sender = port.make_send()
    server.give("port", port.move())
    server.begin("interrupt_when_it_sleeps(task, lambda: port.serve(lambda request: request.body.upper()))")
    server.wait_for_mark()
    assert sender.call(b"one", timeout=PATIENCE).body == b"ONE"
    assert sender.call(b"two", timeout=PATIENCE).body == b"TWO"


def test_an_interrupt_after_an_answer_does_not_send_it_twice(task: machport.Task, new_client: NewClient) -> None:
    """M36: only the receiving half goes on."""
    server, port, answers = new_client("server"), task.allocate(), task.allocate()
    sender = port.make_send()
    server.give("port", port.move())
    sender.send(b"one", reply_to=answers)
    server.do("request = port.receive()")
    server.begin("interrupt_when_it_sleeps(task, lambda: port.reply_and_receive(request, b'once')).body")
    server.wait_for_mark()
    sender.send(b"next")
    assert server.finish() == b"next"
    assert [answer.body for answer in answers.receive_many()] == [b"once"]


def test_an_interrupt_from_the_keyboard_ends_the_serving_and_keeps_the_port_and_the_answer(
    task: machport.Task, new_client: NewClient
) -> None:
    server, port, answers = new_client("server"), task.allocate(), task.allocate()
    sender = port.make_send()
    server.give("port", port.move())
    sender.send(b"one", reply_to=answers)
    server.do("before = len(task.calls.mach_port_names(task.name))")
    server.do("def answer(request): before_sleeping(mark); return request.body.upper()")
    server.begin("port.serve(answer)")
    server.wait_for_mark()
    server.signal(signal.SIGINT)
    with pytest.raises(AssertionError, match="KeyboardInterrupt"):
        server.finish()

    sender.send(b"two", reply_to=answers)
    server.do("port.serve(lambda request: (port.close(), request.body.upper())[1])")
    assert [answers.receive(PATIENCE).body for _ in range(2)] == [b"ONE", b"TWO"]
    assert server.do("before - len(task.calls.mach_port_names(task.name))") == 1


def test_requests_of_a_killed_server_wait_for_its_successor(task: machport.Task, new_client: NewClient) -> None:
    """Promises 1 and 3: the one that it had read is lost, and its client told; the others wait."""
    server, port, back, answers = new_client("server"), task.allocate(), task.allocate(), task.allocate()
    sender = port.make_send()
    port.request_port_destroyed(back)
    server.give("port", port.move())
    sender.send(b"read", reply_to=answers)
    sender.send(b"waiting", reply_to=answers)
    server.begin("port.serve(lambda request: die())")

    assert isinstance(answers.receive(PATIENCE), machport.SendOnceNotification)
    notice = back.receive(PATIENCE)
    assert isinstance(notice, machport.PortDestroyedNotification)
    notice.right.serve(after(notice.right.close, b"by the successor"))
    assert answers.receive(PATIENCE).body == b"by the successor"


# reply_and_receive


def test_an_answer_and_the_next_message_go_in_one_call(
    port: machport.ReceiveRight, answers: machport.ReceiveRight
) -> None:
    request = request_to(port, answers)
    port.make_send().send(b"next")

    assert port.reply_and_receive(request, b"answer").body == b"next"
    answer = answers.receive(PATIENCE)
    assert (answer.body, answer.id) == (b"answer", 105)
    assert not request.expects_reply


def test_an_answer_brings_id_rights_and_memory(
    task: machport.Task, port: machport.ReceiveRight, answers: machport.ReceiveRight
) -> None:
    request, moved, other = request_to(port, answers), task.allocate(), task.allocate()
    copied = other.make_send()
    port.make_send().send(b"next")
    port.reply_and_receive(request, b"", id=9, rights=[moved.move(), copied.copy()], memory=[b"memory"])

    with answers.receive(PATIENCE) as answer:
        assert answer.id == 9
        assert answer.memory == [b"memory"]
        assert [type(right) for right in answer.rights] == [machport.ReceiveRight, machport.SendRight]
    assert moved.closed
    assert not copied.closed


@pytest.mark.parametrize("timeout", [0, 0.001])
def test_when_no_message_comes_in_time_the_answer_was_sent(
    task: machport.Task, port: machport.ReceiveRight, answers: machport.ReceiveRight, timeout: float
) -> None:
    request, moved = request_to(port, answers), task.allocate()
    with pytest.raises(machport.TimedOut) as caught:
        port.reply_and_receive(request, b"answer", rights=[moved.move()], timeout=timeout)
    assert caught.value.code == mach.MACH_RCV_TIMED_OUT
    assert caught.value.name == port.name
    assert moved.closed
    with answers.receive(PATIENCE) as answer:
        assert answer.body == b"answer"
    with pytest.raises(machport.ClosedRight):
        request.reply(b"again")


@pytest.mark.parametrize("how", ["reply", "close"])
def test_a_request_that_was_answered_or_closed_is_not_answered_and_nothing_received(
    task: machport.Task, port: machport.ReceiveRight, answers: machport.ReceiveRight, how: str
) -> None:
    request, moved = request_to(port, answers), task.allocate()
    getattr(request, how)()
    port.make_send().send(b"next")
    with pytest.raises(machport.ClosedRight, match="answered or closed already"):
        port.reply_and_receive(request, b"", rights=[moved.move()])
    assert port.status().msgcount == 1
    assert not moved.closed


def test_a_message_that_was_no_call_is_not_answered_and_nothing_received(port: machport.ReceiveRight) -> None:
    port.make_send().send(b"first")
    message = port.receive(0)
    port.make_send().send(b"next")
    with pytest.raises(machport.InvalidArgument, match="sent, not called"):
        port.reply_and_receive(message, b"")
    assert port.status().msgcount == 1


def test_an_answer_that_cannot_be_packed_leaves_the_request_to_be_answered(
    task: machport.Task, port: machport.ReceiveRight, answers: machport.ReceiveRight
) -> None:
    request, moved, closed = request_to(port, answers), task.allocate(), task.allocate()
    closed_move = closed.move()
    closed.close()
    port.make_send().send(b"next")
    for wrong in ([moved.move(), moved.move()], [moved], [moved.move(), closed_move], [moved.move(), None]):
        with pytest.raises((machport.InvalidArgument, machport.ClosedRight)):
            port.reply_and_receive(request, b"", rights=wrong)  # type: ignore[arg-type]
    with pytest.raises(machport.InvalidArgument):
        port.reply_and_receive(request, b"", id=-1)
    with pytest.raises(machport.InvalidArgument):
        port.reply_and_receive(request, b"", rights=[moved.move()], timeout=-1)
    with pytest.raises(machport.MessageTooLarge):
        port.reply_and_receive(request, bytes(60 * 1024 * 1024), rights=[moved.move()])

    assert request.expects_reply
    assert not moved.closed
    assert port.status().msgcount == 1
    assert port.reply_and_receive(request, b"at last", rights=[moved.move()]).body == b"next"
    assert answers.receive(0).body == b"at last"


def test_an_answer_with_too_many_rights_leaves_the_request_to_be_answered(
    task: machport.Task, port: machport.ReceiveRight, answers: machport.ReceiveRight
) -> None:
    request, other = request_to(port, answers), task.allocate()
    sender = other.make_send()
    port.make_send().send(b"next")
    with pytest.raises(machport.MessageTooLarge):
        port.reply_and_receive(request, b"", rights=[sender.copy()] * 20_000)
    assert port.reply_and_receive(request, b"at last").body == b"next"
    assert answers.receive(0).body == b"at last"


@pytest.mark.parametrize("call", ["reply", "reply_and_receive"])
def test_an_answer_whose_body_fails_takes_the_right_to_answer_along(
    task: machport.Task, port: machport.ReceiveRight, answers: machport.ReceiveRight, call: str
) -> None:
    """M8: whoever asked learns that no answer comes, and the message knows that it cannot be answered."""
    request, lost, bad, kept = request_to(port, answers), *task.allocate_many(3)
    port.make_send().send(b"next")
    task.calls.mach_port_destroy(task.name, bad.name)  # behind the object's back
    rights = [lost.move(), bad.move(), kept.move()]

    answer = request.reply if call == "reply" else partial(port.reply_and_receive, request)
    with pytest.raises(machport.InvalidRight):
        answer(b"", rights=rights)

    assert isinstance(answers.receive(PATIENCE), machport.SendOnceNotification)
    assert not request.expects_reply
    assert lost.closed
    assert not kept.closed
    assert port.status().msgcount == 1
    with pytest.raises(machport.ClosedRight):
        request.reply(b"again")


@pytest.mark.parametrize("when", ["before-receiving", "after-receiving"])
def test_an_answer_that_nobody_waits_for_is_dropped_with_its_rights(
    task: machport.Task, port: machport.ReceiveRight, when: str
) -> None:
    asker, hears = task.allocate(), task.allocate()
    before = names(task)
    port.make_send().send(b"", reply_to=asker)
    if when == "before-receiving":
        asker.close()
    request = port.receive(0)
    asker.close()
    sender = port.make_send()
    sender.send(b"next")
    sender.close()
    moved, copied = hears.make_send_once(), hears.make_send()

    assert port.reply_and_receive(request, b"", rights=[moved.move(), copied.copy()]).body == b"next"

    assert moved.closed
    assert isinstance(hears.receive(0), machport.SendOnceNotification)
    copied.send(b"still there")
    copied.close()
    assert len(names(task)) == len(before) - 1
    assert not request.expects_reply


def test_an_answer_never_waits_for_room(port: machport.ReceiveRight, answers: machport.ReceiveRight) -> None:
    """M11: it goes to a send-once right."""
    answers.set_qlimit(0)
    first, second = request_to(port, answers), request_to(port, answers)
    port.make_send().send(b"next")
    first.reply(b"one")
    assert port.reply_and_receive(second, b"two", timeout=PATIENCE).body == b"next"
    assert [answer.body for answer in answers.receive_many()] == [b"one", b"two"]


def test_a_port_that_is_gone_still_lets_the_answer_go(
    task: machport.Task, port: machport.ReceiveRight, answers: machport.ReceiveRight
) -> None:
    request = request_to(port, answers)
    task.calls.mach_port_destroy(task.name, port.name)  # behind the object's back
    with pytest.raises(machport.InvalidName) as caught:
        port.reply_and_receive(request, b"answer")
    assert caught.value.name == port.name
    assert answers.receive(0).body == b"answer"


def test_a_closed_port_does_not_answer(port: machport.ReceiveRight, answers: machport.ReceiveRight) -> None:
    request = request_to(port, answers)
    port.close()
    with pytest.raises(machport.ClosedRight, match="was closed"):
        port.reply_and_receive(request, b"answer")
    request.reply(b"by itself")
    assert answers.receive(0).body == b"by itself"


def test_a_request_of_another_port_is_answered_too(
    task: machport.Task, port: machport.ReceiveRight, answers: machport.ReceiveRight
) -> None:
    other = task.allocate()
    request = request_to(port, answers)
    other.make_send().send(b"elsewhere")
    assert other.reply_and_receive(request, b"answer").body == b"elsewhere"
    assert answers.receive(0).body == b"answer"


def test_an_answer_by_a_send_right_uses_its_reference_up(
    task: machport.Task, port: machport.ReceiveRight, answers: machport.ReceiveRight
) -> None:
    """Clients of other conventions make a send right to be answered by."""
    message = layout.pack(
        layout.bits(mach.MACH_MSG_TYPE_MAKE_SEND, mach.MACH_MSG_TYPE_MAKE_SEND), port.name, answers.name, id=5
    )
    for _ in range(2):
        assert task.calls.mach_msg(t.MsgTrap(mach.MACH_SEND_MSG, message)).code == 0
    first = port.receive(0)
    assert isinstance(first.reply_right, machport.SendRight)
    second = port.reply_and_receive(first, b"one")
    second.reply(b"two")

    assert [answer.body for answer in answers.receive_many()] == [b"one", b"two"]
    assert answers.status().srights == 0


def test_the_right_that_an_answer_goes_by_is_told(
    task: machport.Task, port: machport.ReceiveRight, answers: machport.ReceiveRight
) -> None:
    request = request_to(port, answers)
    assert request.open_reply_right() is request.reply_right
    port.make_send().send(b"", reply_to=answers)
    answers.close()
    assert port.receive(0).open_reply_right() is None


def test_serving_ends_with_what_the_daemons_end_means(daemon: DaemonProcess, task: machport.Task) -> None:
    port = task.allocate()
    sender = port.make_send()
    served = in_thread(lambda: port.serve(upper))
    sender.call(b"")
    daemon.kill()
    with pytest.raises(machport.DaemonLost):
        served.result(PATIENCE)
