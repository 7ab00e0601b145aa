"""Rights as objects: what each may do, and what becomes of the object when the right is gone."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path

import pytest
from actors import DaemonProcess

import machport
from machport import mach

WAIT = 20.0


def test_equal_rights_are_of_one_task_under_one_name(task: machport.Task) -> None:
    """P11: send rights to one port come together under one name."""
    port = task.allocate()
    first, second = port.make_send(), port.make_send()

    assert first == second
    assert hash(first) == hash(second)
    assert first == port
    assert first != task.allocate()
    assert first.name == port.name


def test_each_object_stands_for_one_user_reference(task: machport.Task) -> None:
    port = task.allocate()
    first, second = port.make_send(), port.make_send()
    third = second.duplicate()
    assert task.calls.mach_port_get_refs(task.name, port.name, mach.MACH_PORT_RIGHT_SEND) == 3

    first.close()
    first.close()
    second.close()
    assert task.calls.mach_port_get_refs(task.name, port.name, mach.MACH_PORT_RIGHT_SEND) == 1
    third.send(b"still there")
    assert port.receive(WAIT).body == b"still there"


def test_a_closed_right_says_what_became_of_it(task: machport.Task) -> None:
    right = task.allocate().make_send()
    right.close()

    with pytest.raises(machport.ClosedRight, match="was closed"):
        right.send(b"")
    assert "closed" in repr(right)


def test_a_used_send_once_right_says_so(task: machport.Task) -> None:
    """P13: it sends one message."""
    port = task.allocate()
    right = port.make_send_once()
    right.send(b"once")

    with pytest.raises(machport.ClosedRight, match="was used"):
        right.send(b"twice")
    assert port.receive(WAIT).body == b"once"


def test_a_moved_right_says_so_and_a_copied_one_stays(task: machport.Task) -> None:
    port, other, third = task.allocate(), task.allocate(), task.allocate()
    moved, copied = other.make_send(), third.make_send()
    port.make_send().send(rights=[moved.move(), copied.copy()])

    with pytest.raises(machport.ClosedRight, match="moved away"):
        moved.send(b"")
    copied.send(b"still mine")
    with port.receive(WAIT) as message:
        assert [type(right) for right in message.rights] == [machport.SendRight, machport.SendRight]
        assert message.rights[1] == copied


def test_a_right_goes_into_a_message_only_as_a_move_or_a_copy(task: machport.Task) -> None:
    port = task.allocate()
    right = port.make_send()

    with pytest.raises(machport.InvalidArgument, match=r"give right.move\(\) or right.copy\(\)"):
        right.send(rights=[right])  # type: ignore[list-item]
    assert port.status().msgcount == 0


def test_a_right_of_another_task_is_refused(task: machport.Task) -> None:
    """P2: a name means nothing outside its task."""
    with machport.Task(label="other") as other:
        theirs, ours = other.allocate(), task.allocate()
        stranger = theirs.make_send()
        with pytest.raises(machport.InvalidArgument, match="is not of task test"):
            ours.make_send().send(rights=[stranger.copy()])


def test_a_port_set_cannot_be_moved(task: machport.Task) -> None:
    """P8."""
    with pytest.raises(machport.InvalidArgument, match="never sent"):
        task.port_set().move()


def test_a_right_is_not_pickled_outside_of_spawn(task: machport.Task) -> None:
    port = task.allocate()
    right = port.make_send()

    for thing in (right, right.copy(), right.move()):
        with pytest.raises(machport.InvalidArgument, match="travel"):
            pickle.dumps(thing)
    right.send(b"unharmed")


def test_a_send_that_times_out_gives_its_rights_back(task: machport.Task) -> None:
    """M18, M19: nothing is gained and nothing is lost."""
    port = task.allocate(qlimit=1)
    send = port.make_send()
    first, second, receive = task.allocate(), task.allocate(), task.allocate()
    moved, copied = first.make_send(), second.make_send()
    send.send(b"fills the queue")
    before = sorted(task.calls.mach_port_names(task.name))
    references = task.calls.mach_port_get_refs(task.name, send.name, mach.MACH_PORT_RIGHT_SEND)

    with pytest.raises(machport.TimedOut):
        send.send(b"", rights=[moved.move(), copied.copy(), receive.move()], timeout=0)

    assert task.calls.mach_port_get_refs(task.name, send.name, mach.MACH_PORT_RIGHT_SEND) == references
    assert [kind for _, kind in sorted(task.calls.mach_port_names(task.name))] == [kind for _, kind in before]
    for right in (moved, copied):
        right.send(b"still mine")
    assert receive.status().msgcount == 0


def test_a_port_set_receives_from_all_in_the_order_of_arrival(task: machport.Task) -> None:
    """P35."""
    ports = [task.allocate() for _ in range(3)]
    pset = task.port_set(*ports)
    for index in (2, 0, 1):
        ports[index].make_send().send(bytes([index]))

    assert [pset.receive(WAIT).body[0] for _ in range(3)] == [2, 0, 1]
    assert pset.members() == ports
    pset.remove(ports[0])
    assert pset.members() == ports[1:]


def test_a_receive_from_a_member_is_refused_with_its_rule(task: machport.Task) -> None:
    """P34: the error says task, name, code and rule."""
    port = task.allocate()
    with task.port_set(port), pytest.raises(machport.InvalidRight) as caught:
        port.receive(0)
    assert caught.value.code == mach.MACH_RCV_IN_SET
    assert caught.value.rule == "P34"
    assert caught.value.name == port.name
    for part in (task.label, f"{port.name:#x}", "MACH_RCV_IN_SET", "P34"):
        assert part in str(caught.value)


def test_iteration_ends_when_the_right_is_gone(task: machport.Task) -> None:
    port = task.allocate()
    port.make_send().send(b"one")
    seen = []
    for message in port:
        seen.append(message.body)
        port.close()

    assert seen == [b"one"]


def test_a_timeout_is_seconds_and_not_negative(task: machport.Task) -> None:
    port = task.allocate()
    with pytest.raises(machport.TimedOut):
        port.receive(0.001)
    with pytest.raises(machport.InvalidArgument, match="0 or more seconds"):
        port.receive(-1)
    assert issubclass(machport.TimedOut, TimeoutError)


def test_a_dead_name_holds_its_name_until_it_is_closed(task: machport.Task) -> None:
    """N19, N20."""
    port, deaths = task.allocate(), task.allocate()
    right = port.make_send()
    name = right.name
    right.request_dead_name(deaths)
    port.close()

    notice = deaths.receive(WAIT)
    assert isinstance(notice, machport.DeadNameNotification)
    assert notice.name == name
    assert right.is_dead()
    assert task.calls.mach_port_get_refs(task.name, name, mach.MACH_PORT_RIGHT_DEAD_NAME) == 2
    notice.close()
    right.close()
    assert name not in dict(task.calls.mach_port_names(task.name))


def test_an_open_file_travels_as_a_right(task: machport.Task, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("content")
    with open(path, "rb") as file:
        right = task.fileport(file)
    copy = right.open_file()

    assert os.pread(copy, 100, 0) == b"content"
    os.close(copy)
    with task.allocate() as port, pytest.raises(machport.InvalidRight, match="does not stand for such an object"):
        port.make_send().open_file()


def test_a_fileport_opens_the_file_it_stands_for(task: machport.Task, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("one\ntwo\n")
    with path.open() as file, task.fileport(file) as right:
        assert isinstance(right, machport.Fileport)
        with right.open("r", encoding="utf-8") as again:
            assert again.read() == "one\ntwo\n"


def test_services_are_found_by_name_until_their_port_dies(task: machport.Task) -> None:
    service = task.check_in("org.example.upper")
    task.look_up("org.example.upper").send(b"hello")
    assert service.receive(WAIT).body == b"hello"
    with pytest.raises(machport.AlreadyExists):
        task.check_in("org.example.upper")

    service.close()
    with pytest.raises(machport.InvalidName):
        task.look_up("org.example.upper")

    port = task.allocate()
    task.register("org.example.other", port.make_send())
    task.look_up("org.example.other").send(b"again")
    assert port.receive(WAIT).body == b"again"


def test_after_its_task_is_closed_a_right_fails_and_closing_it_does_not(task: machport.Task) -> None:
    other = machport.Task(label="short")
    port = other.allocate()
    right = port.make_send()
    other.close()
    other.close()

    assert other.closed
    with pytest.raises(machport.DeadTask, match="was closed"):
        right.send(b"")
    right.close()


def test_a_name_of_another_task_is_never_taken_for_one_of_this(task: machport.Task) -> None:
    """P2: the first port of every task has the same number, which says nothing."""
    with machport.Task(label="other") as other:
        mine, stranger = task.allocate(), other.allocate()
        assert mine.name == stranger.name
        send, pset = mine.make_send(), task.port_set()
        for use in (
            lambda: send.send(reply_to=stranger),
            lambda: task.port_set(stranger),
            lambda: pset.add(stranger),
            lambda: pset.remove(stranger),
            lambda: send.request_dead_name(stranger),
            lambda: mine.request_no_senders(stranger),
            lambda: mine.request_port_destroyed(stranger),
            lambda: task.register("org.example.stranger", stranger.make_send()),
        ):
            with pytest.raises(machport.InvalidArgument, match="is not of task test"):
                use()
        status = mine.status()
        assert (status.msgcount, status.pset, status.nsrequest, status.pdrequest) == (0, 0, 0, 0)


def test_a_right_of_another_kind_is_refused(task: machport.Task) -> None:
    port = task.allocate()
    send = port.make_send()

    with pytest.raises(machport.InvalidArgument, match="reply_to must be a ReceiveRight, not <SendRight"):
        send.send(reply_to=send)  # type: ignore[arg-type]
    with pytest.raises(machport.InvalidArgument, match="right must be a SendRight, not <ReceiveRight"):
        task.register("org.example.wrong", port)  # type: ignore[arg-type]
    with pytest.raises(machport.InvalidArgument, match=r"not as 5"):
        send.send(rights=[5])  # type: ignore[list-item]


def test_a_right_is_moved_once(task: machport.Task) -> None:
    port, other = task.allocate(), task.allocate()
    with pytest.raises(machport.InvalidArgument, match="moved twice"):
        port.make_send().send(rights=[other.move(), other.move()])
    with pytest.raises(machport.InvalidArgument, match="moved twice"):
        task.spawn(print, other.move(), other.move())
    assert other.status().msgcount == 0


def test_a_closed_right_cannot_be_moved(task: machport.Task) -> None:
    port = task.allocate()
    right = port.make_send()
    right.close()
    with pytest.raises(machport.ClosedRight):
        right.move()
    with pytest.raises(machport.ClosedRight):
        right.copy()


@pytest.mark.parametrize("body", [5, [1, 2], "text", None])
def test_a_body_is_bytes(task: machport.Task, body: object) -> None:
    port = task.allocate()
    with pytest.raises(machport.BadArguments, match="a body is bytes"):
        port.make_send().send(body)  # type: ignore[arg-type]
    assert port.status().msgcount == 0


def test_arguments_out_of_range_say_what_the_range_is(task: machport.Task) -> None:
    port = task.allocate()
    send = port.make_send()
    with pytest.raises(machport.InvalidArgument, match="an id is 0 to 4294967295, not -1"):
        send.send(id=-1)
    with pytest.raises(machport.InvalidArgument, match="a queue limit is 0 to 1024, not -1"):
        task.allocate(qlimit=-1)
    with pytest.raises(machport.InvalidArgument, match="0 or more seconds, not nan"):
        port.receive(float("nan"))
    with pytest.raises(machport.InvalidArgument, match="spawn needs a function or the list of a program, not None"):
        task.spawn(None)  # type: ignore[arg-type]
    with pytest.raises(machport.MessageTooLarge, match="use a data queue"):
        send.send(bytes(51_000_000))
    send.send(b"fine", timeout=float("inf"))
    assert port.receive(WAIT).body == b"fine"


@pytest.mark.parametrize("descriptor", [-1, 9999])
def test_a_descriptor_that_is_not_open_is_the_callers_fault(task: machport.Task, descriptor: int) -> None:
    with pytest.raises(machport.InvalidArgument, match=f"descriptor {descriptor} is not open"):
        task.fileport(descriptor)
    task.allocate()


def test_a_right_shows_its_kind_name_label_task_and_references(task: machport.Task) -> None:
    port = task.allocate(label="jobs")
    right = port.make_send()
    assert repr(right) == f"<SendRight {port.name:#x} 'jobs' of {task.label}>"
    second = right.duplicate()
    assert repr(right) == f"<SendRight {port.name:#x} 'jobs' of {task.label}, 2 urefs>"
    port.close()
    assert repr(second) == f"<SendRight {right.name:#x} 'jobs' of {task.label}, dead, 2 urefs>"
    assert repr(port) == f"<ReceiveRight {right.name:#x} of {task.label} closed>"


def test_a_right_can_be_shown_when_nobody_can_be_asked(daemon: DaemonProcess) -> None:
    with machport.Task(label="closed") as closed:
        port = closed.allocate()
    assert repr(port) == f"<ReceiveRight {port.name:#x} of {closed.label}>"
    with machport.Task(label="lost") as lost:
        port = lost.allocate()
        daemon.kill()
        assert repr(port) == f"<ReceiveRight {port.name:#x} of {lost.label}>"


def test_one_right_is_moved_once_in_a_message_and_two_objects_of_it_twice(task: machport.Task) -> None:
    port, box = task.allocate(), task.allocate()
    first, second, way = port.make_send(), port.make_send(), box.make_send()

    with pytest.raises(machport.InvalidArgument, match="moved twice in one message"):
        way.send(rights=[first.move(), first.move()])
    second.send(b"unharmed")
    way.send(rights=[first.move(), second.move()])
    assert box.receive(WAIT).rights == [first, second]
    assert port.receive(WAIT).body == b"unharmed"


def test_a_right_that_was_taken_away_by_its_name_is_not_told_to_be_dead(task: machport.Task) -> None:
    port = task.allocate(label="jobs")
    right = port.make_send()
    task.calls.mach_port_deallocate(task.name, right.name)

    with pytest.raises(machport.DeadPort, match="no right of this kind to the port, which lives"):
        right.send(b"")
    right.gone("deallocated")


@pytest.mark.parametrize("rights", ["move", "copy"])
def test_rights_are_a_list(task: machport.Task, rights: str) -> None:
    port = task.allocate()
    right = port.make_send()
    with pytest.raises(TypeError, match="rights= is a list"):
        right.send(rights=getattr(right, rights)())
    assert port.status().msgcount == 0


def test_a_service_has_a_name_of_text_and_whoever_has_it_is_named(task: machport.Task) -> None:
    with pytest.raises(machport.BadArguments, match="a string, not b'jobs'"):
        task.look_up(b"jobs")  # type: ignore[arg-type]
    first = machport.Task(label="first")
    says = rf"'jobs' is served by {re.escape(first.label)}"
    with first, first.check_in("jobs"), pytest.raises(machport.AlreadyExists, match=says):
        task.check_in("jobs")


def test_an_answer_for_nobody_says_to_pass_it_over(task: machport.Task) -> None:
    port, answers = task.allocate(), task.allocate()
    port.make_send().send(reply_to=answers)
    answers.close()
    with pytest.raises(machport.DeadPort, match=r"reply in .*: whoever asked does not wait any more; pass it over"):
        port.receive(WAIT).reply(b"too late")
