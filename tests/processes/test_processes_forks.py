"""A forked child holds none of its parent's rights and does its parent no harm (T11)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from actors import PATIENCE, Client

import machport

NewClient = Callable[[str], Client]

FORK = """
def forked(run):
    "What a forked child makes of a call."
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try: said = repr(run())
        except BaseException as error: said = type(error).__name__
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as said:
        result = said.read()
    os.waitpid(pid, 0)
    return result
"""


@pytest.fixture
def client(new_client: NewClient) -> Client:
    client = new_client("client")
    client.do(FORK)
    client.do("port = task.allocate(); sender = port.make_send(); sender.send(b'before the fork')")
    return client


@pytest.mark.parametrize(
    "use",
    [
        "port.receive(0)",
        "sender.send(b'')",
        "sender.call(b'')",
        "port.make_send()",
        "port.close()",
        "task.allocate()",
        "task.port_set()",
        "task.spawn(print, sender.copy())",
        "task.fileport(0)",
        "task.look_up('client')",
    ],
)
def test_using_a_right_of_the_parent_raises_forked_task_and_leaves_the_parent_unharmed(
    client: Client, use: str
) -> None:
    assert client.do(f"forked(lambda: {use})") == "ForkedTask"
    assert client.do(f"port.receive({PATIENCE}).body") == b"before the fork"


def test_objects_of_the_parent_can_be_shown_and_dropped_in_the_child(client: Client) -> None:
    assert client.do("forked(lambda: (repr(task), repr(port))[0])") == f"'<Task client[{client.pid}]>'"
    assert client.do("forked(task.close)") == "None"
    assert client.do(f"port.receive({PATIENCE}).body") == b"before the fork"


def test_the_child_can_be_a_task_of_its_own(client: Client) -> None:
    assert client.do("forked(lambda: machport.Task().look_up('client').send(b'from the child'))") == "None"
    assert client.do(f"inbox.receive({PATIENCE}).body") == b"from the child"


def test_mach_calls_of_the_child_raise_forked_task_until_it_calls_mach_init(client: Client) -> None:
    client.do("me = mach.mach_task_self(); mine = mach.mach_reply_port()")
    assert client.do("forked(mach.mach_reply_port)") == "ForkedTask"
    assert (
        client.do("forked(lambda: (mach.mach_init(), len(mach.mach_port_names(mach.mach_task_self()))))") == "(None, 1)"
    )
    assert client.do("dict(mach.mach_port_names(me))[mine]") == machport.mach.MACH_PORT_TYPE_RECEIVE


def test_the_process_task_of_the_face_is_new_in_a_child_that_calls_mach_init(client: Client) -> None:
    client.do("own = machport.task_self(); echo = own.allocate(); to_echo = echo.make_send()")
    client.do("in_thread(own, lambda: echo.receive().reply(b'echo'))")
    client.do("to_echo.call(b'').body")
    client.do(
        "def child():\n"
        "    mach.mach_init()\n"
        "    own = machport.task_self()\n"
        "    port = own.allocate()\n"
        "    sender = port.make_send()\n"
        "    in_thread(own, lambda: port.receive().reply(b'again'))\n"
        "    return sender.call(b'', timeout=10).body\n"
    )
    assert client.do("forked(child)") == "b'again'"


def test_a_child_forked_while_a_thread_of_the_parent_waits_takes_nothing_from_it(client: Client) -> None:
    client.do("got = []; in_thread(task, lambda: got.append(inbox.receive().body))")
    assert client.do("forked(lambda: port.receive(0))") == "ForkedTask"
    client.inbox.send(b"for the thread")
    client.do("[thread.join() for thread in threading.enumerate() if thread is not threading.main_thread()]")
    assert client.do("got") == [b"for the thread"]


def test_a_child_forked_while_another_thread_makes_a_call_of_the_process_task_is_not_blocked(client: Client) -> None:
    client.do("from machport.client.process import process_task; mach.mach_task_self(); process_task._lock.acquire()")
    assert client.do("forked(mach.mach_reply_port)") == "ForkedTask"
    client.do("process_task._lock.release()")
