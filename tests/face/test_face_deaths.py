"""Errors and notifications say which port it was, who had it and how they ended, and whether to ask again."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable

import pytest
from actors import PATIENCE, Client

import machport
from machport.abi import constants as c

NewClient = Callable[[str], Client]


def served(task: machport.Task, client: Client, label: str = "jobs") -> machport.SendRight:
    """A send right to a port that the client has as ``port``."""
    port = task.allocate(label=label)
    send = port.make_send()
    client.give("port", port.move())
    client.do("ports = [*globals().get('ports', []), port]")
    return send


def killed(pid: int, name: str = "worker") -> str:
    return f"task {name}[{pid}] was killed by SIGKILL at "


# Labels


def test_a_port_has_the_label_that_it_was_allocated_with(task: machport.Task, new_client: NewClient) -> None:
    port = task.allocate(label="jobs", qlimit=7)
    assert (port.label, port.status().qlimit) == ("jobs", 7)
    send = port.make_send()
    client = new_client("worker")
    client.give("port", port.move())
    client.do("port.set_label('other jobs')")
    assert send.label == "other jobs"
    assert send.describe().holder == f"worker[{client.pid}]"
    assert task.allocate().label == ""


def test_a_label_that_is_refused_leaves_no_port(task: machport.Task) -> None:
    before = task.calls.mach_port_names(task.name)
    with pytest.raises(machport.InvalidArgument, match="at most 64 bytes"):
        task.allocate(label="x" * 65)
    assert task.calls.mach_port_names(task.name) == before


def test_a_closed_right_is_not_described(task: machport.Task) -> None:
    port = task.allocate()
    port.close()
    with pytest.raises(machport.ClosedRight):
        port.describe()


# Calls


def test_a_server_that_died_with_the_request_is_named_and_it_is_not_safe_to_ask_again(
    task: machport.Task, new_client: NewClient
) -> None:
    client = new_client("worker")
    send = served(task, client)
    client.begin("kept = port.receive(); os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(machport.ServerDied) as caught:
        send.call(b"work", timeout=PATIENCE)
    client.wait()
    error = caught.value
    assert (error.code, error.retry_safe, error.port_label) == (c.MIG_SERVER_DIED, False, "jobs")
    assert isinstance(error.death, machport.Obituary)
    assert (error.death.pid, error.death.signal) == (client.pid, signal.SIGKILL)
    said = str(error)
    assert f"call in task {task.label} on name {send.name:#x}: the server of port 'jobs' died with this request" in said
    assert killed(client.pid) in said
    assert "; find out whether it was carried out before you ask again: MIG_SERVER_DIED" in said
    assert str(pickle.loads(pickle.dumps(error))) == said


def test_a_request_that_nobody_had_received_is_safe_to_ask_again(task: machport.Task, new_client: NewClient) -> None:
    client = new_client("worker")
    send = served(task, client)
    # It dies when it sees the request in its queue.
    client.begin("while not port.status().msgcount: pass\ndie()")
    with pytest.raises(machport.ServerDied) as caught:
        send.call(b"work", timeout=PATIENCE)
    failed = caught.value
    client.wait()
    assert failed.retry_safe
    assert failed.code == c.MIG_SERVER_DIED
    assert failed.death is not None
    assert failed.death.signal == signal.SIGKILL
    assert "the server of port 'jobs' was gone before it had received the request: " + killed(client.pid) in str(failed)
    assert "; ask again, by a right to a living server: " in str(failed)


def test_a_request_that_was_not_sent_is_safe_to_ask_again(task: machport.Task, new_client: NewClient) -> None:
    client = new_client("worker")
    send = served(task, client)
    client.die()
    with pytest.raises(machport.ServerDied) as caught:
        send.call(b"work")
    error = caught.value
    assert (error.code, error.retry_safe) == (c.MACH_SEND_INVALID_DEST, True)
    assert f"the server of port 'jobs' is dead, and the request was not sent: {killed(client.pid)}" in str(error)


def test_a_living_server_that_drops_a_request_is_named(task: machport.Task, new_client: NewClient) -> None:
    """An older death at the same port is not this one's."""
    first, second, back = new_client("first"), new_client("second"), task.allocate()
    port = task.allocate(label="jobs")
    port.request_port_destroyed(back)
    send = port.make_send()
    first.give("port", port.move())
    first.die()
    notification = back.receive(PATIENCE)
    assert isinstance(notification, machport.PortDestroyedNotification)
    second.give("port", notification.right.move())
    assert send.describe().obituary is not None
    second.begin(f"port.receive({PATIENCE}).close()")
    with pytest.raises(machport.ServerDied) as caught:
        send.call(b"work", timeout=PATIENCE)
    second.finish()
    error = caught.value
    assert (error.death, error.retry_safe, error.holder) == (None, False, f"second[{second.pid}]")
    assert f"the server of port 'jobs' dropped this request (second[{second.pid}] has the port, if" in str(error)


def test_whoever_had_the_request_is_blamed_though_another_was_asked(task: machport.Task, new_client: NewClient) -> None:
    front, worker = new_client("front"), new_client("worker")
    send = served(task, front)
    inner = served(task, worker, "inner")
    front.give("inner", inner.move())
    worker.begin("kept = port.receive(); die()")
    front.begin("inner.send(rights=[port.receive().reply_right.move()])")
    with pytest.raises(machport.ServerDied) as caught:
        send.call(b"work", timeout=PATIENCE)
    front.finish()
    worker.wait()
    assert not caught.value.retry_safe
    assert killed(worker.pid) in str(caught.value)
    assert caught.value.holder == f"front[{front.pid}]"


def test_a_reply_port_is_used_again_after_a_loss(task: machport.Task, new_client: NewClient) -> None:
    client = new_client("worker")
    send = served(task, client)
    client.begin("[port.receive().close() for _ in range(3)]")
    before = None
    for _ in range(3):
        with pytest.raises(machport.ServerDied):
            send.call(timeout=PATIENCE)
        names = sorted(task.calls.mach_port_names(task.name))
        assert before in (None, names)
        before = names
    client.finish()


# Sending


def test_a_dead_port_is_named_with_who_died(task: machport.Task, new_client: NewClient) -> None:
    client = new_client("worker")
    send, plain = served(task, client), served(task, client, "")
    client.die()
    for act in (lambda: send.send(b""), lambda: send.send_many([b"", b""])):
        with pytest.raises(machport.DeadPort) as caught:
            act()
        assert (caught.value.port_label, caught.value.death.pid) == ("jobs", client.pid)
        assert killed(client.pid) in str(caught.value)
    assert "0 of 2 messages were sent (port 'jobs'): " in str(caught.value)
    with pytest.raises(machport.PeerGone, match=r"the port is dead: task worker\[\d+\] was killed by SIGKILL at "):
        plain.send(b"")


def test_a_port_that_was_given_up_says_only_that_it_is_dead(task: machport.Task) -> None:
    port = task.allocate(label="jobs")
    send = port.make_send()
    port.close()
    with pytest.raises(machport.DeadPort, match="port 'jobs' is dead; get a right to a living port") as caught:
        send.send(b"")
    assert caught.value.death is None


def test_what_never_was_a_right_is_no_dead_port_of_anybody(task: machport.Task) -> None:
    port = task.allocate()
    send = port.make_send()
    task.calls.mach_port_destroy(task.name, send.name)  # behind the object's back
    with pytest.raises(machport.DeadPort, match="the port is dead, or the task has no right to send to it") as caught:
        send.send(b"")
    assert (caught.value.port_label, caught.value.death) == ("", None)


# Notifications


def test_a_dead_name_notification_says_how_it_came(task: machport.Task, new_client: NewClient) -> None:
    client, deaths = new_client("worker"), task.allocate()
    send = served(task, client)
    send.request_dead_name(deaths)
    client.die()
    notification = deaths.receive(PATIENCE)
    assert isinstance(notification, machport.DeadNameNotification)
    assert notification.death is not None
    assert str(notification.death).startswith(killed(client.pid))
    send.close()
    notification.close()
    assert notification.death is None, "the name is gone, and may be another's"


def test_a_port_destroyed_notification_says_who_lost_the_right(task: machport.Task, new_client: NewClient) -> None:
    client, back, port = new_client("worker"), task.allocate(), task.allocate(label="jobs")
    port.request_port_destroyed(back)
    client.give("port", port.move())
    client.die()
    notification = back.receive(PATIENCE)
    assert isinstance(notification, machport.PortDestroyedNotification)
    assert notification.death is not None
    assert str(notification.death).startswith(killed(client.pid))
    assert notification.right.label == "jobs"
    notification.close()
    assert notification.death is None


def test_a_right_that_was_closed_by_its_holder_has_no_death(task: machport.Task, new_client: NewClient) -> None:
    client, deaths = new_client("worker"), task.allocate()
    send = served(task, client)
    send.request_dead_name(deaths)
    client.do("port.close()")
    notification = deaths.receive(PATIENCE)
    assert isinstance(notification, machport.DeadNameNotification)
    assert notification.death is None


def test_without_a_daemon_an_error_says_what_it_knows(task: machport.Task) -> None:
    from machport.face.deaths import server_died

    send = task.allocate(label="jobs").make_send()
    name = send.name
    task.close()
    error = server_died(task, name, c.MIG_SERVER_DIED, 0x77)
    assert (error.death, error.port_label, error.retry_safe) == (None, "", False)
    assert "the server dropped this request, which may have been carried out" in str(error)


# Children of one's own


def drop_requests(port: machport.ReceiveRight, kill: bool) -> None:
    port.receive()
    if kill:
        os.kill(os.getpid(), signal.SIGKILL)
    raise SystemExit(7)


@pytest.mark.parametrize(("kill", "how"), [(True, "was killed by SIGKILL"), (False, "exited with 7")])
def test_the_parent_is_told_how_its_child_died_before_it_has_collected_it(
    task: machport.Task, kill: bool, how: str
) -> None:
    """The system tells a parent first."""
    port = task.allocate(label="jobs")
    right = port.make_send()
    with task.spawn(drop_requests, port.move(), kill) as child:
        with pytest.raises(machport.ServerDied):
            right.call(timeout=PATIENCE)
        with right.dead(PATIENCE) as notice:
            death = notice.death
        assert death is not None
        assert death.pid == child.pid
        assert death.wait(PATIENCE)
        assert how in str(death)


def test_a_timeout_tells_whether_anything_was_sent(task: machport.Task) -> None:
    full, silent = task.allocate(qlimit=0), task.allocate()
    with pytest.raises(machport.TimedOut) as unsent:
        full.make_send().call(timeout=0)
    with pytest.raises(machport.TimedOut) as unanswered:
        silent.make_send().call(timeout=0)
    assert unsent.value.retry_safe
    assert not unanswered.value.retry_safe


def test_an_error_shows_its_text_where_it_is_not_printed(task: machport.Task) -> None:
    port = task.allocate(label="jobs")
    right = port.make_send()
    port.close()
    with pytest.raises(machport.ServerDied) as error:
        right.call()
    assert error.value.port_dead
    assert repr(error.value) == f"ServerDied({str(error.value)!r})"
    assert "'jobs'" in repr(error.value)
