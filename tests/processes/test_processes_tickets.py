"""Rights that ``multiprocessing`` and ``concurrent.futures`` carry arrive in the task that unpickles them (A7)."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.reduction import ForkingPickler
from typing import Any

import pytest
from actors import PATIENCE, Client, DaemonProcess, command_as

import machport
from machport import DataQueue, mach
from machport.abi import constants as c

Context = SpawnContext | ForkServerContext
CONTEXTS = (SpawnContext(), ForkServerContext())
NOBODY = 65534


@pytest.fixture
def own_task(daemon: DaemonProcess) -> Iterator[machport.Task]:
    """The task of the test's process, new for the test."""
    mach.mach_init()
    yield machport.task_self()
    mach.mach_init()


def rights_of(task: machport.Task) -> list[int]:
    """What the task holds, whatever the names."""
    return sorted(kind for _, kind in task.calls.mach_port_names(task.name))


def pickled(*things: object) -> bytes:
    return bytes(ForkingPickler.dumps(things))


def back_from(port: machport.ReceiveRight) -> machport.PortDestroyedNotification:
    notice = port.receive(PATIENCE)
    assert isinstance(notice, machport.PortDestroyedNotification)
    return notice


def answer(port: machport.ReceiveRight, *senders: machport.SendRight | machport.SendOnceRight) -> None:
    """A process that says which rights came, and answers at the first."""
    assert port.task is machport.task_self()
    for sender in senders:
        sender.send(f"{type(sender).__name__} in {os.getpid()}".encode())
    for request in port:
        request.reply(request.body.upper())


def answer_from(queue: Any) -> None:
    answer(*queue.get())


def tell_twice(sender: machport.SendRight, what: bytes) -> machport.Transfer:
    """Work of a pool: use a right, and give it back."""
    sender.send(what)
    return sender.move()


def make_service() -> machport.Transfer:
    """Work of a pool: a new right as the result."""
    global kept
    kept = machport.task_self().allocate()
    return kept.make_send().move()


def receive_kept() -> bytes:
    return kept.receive(PATIENCE).body


def leave_at_once(port: machport.ReceiveRight) -> None:
    """Never called: its process is killed before."""


kept: machport.ReceiveRight


class DiesWhenUnpickled:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> Any:
        return os._exit, (7,)


@pytest.mark.parametrize("context", CONTEXTS, ids=("spawn", "forkserver"))
def test_rights_arrive_among_the_arguments_of_a_process(own_task: machport.Task, context: Context) -> None:
    port, answers = own_task.allocate(), own_task.allocate()
    server, sender, once = port.make_send(), answers.make_send(), answers.make_send_once()
    process = context.Process(target=answer, args=(port.move(), sender.copy(), once.move()), daemon=True)
    process.start()
    assert answers.receive(PATIENCE).body == f"SendRight in {process.pid}".encode()
    assert answers.receive(PATIENCE).body == f"SendOnceRight in {process.pid}".encode()
    assert server.call(b"hello", timeout=PATIENCE).body == b"HELLO"
    assert (port.closed, sender.closed, once.closed) == (True, False, True)
    process.kill()
    process.join(PATIENCE)


def test_rights_arrive_through_a_queue_of_multiprocessing(own_task: machport.Task) -> None:
    context = SpawnContext()
    port, answers = own_task.allocate(), own_task.allocate()
    server = port.make_send()
    queue = context.Queue()
    process = context.Process(target=answer_from, args=(queue,), daemon=True)
    process.start()
    queue.put((port.move(), answers.make_send().move()))
    assert answers.receive(PATIENCE).body == f"SendRight in {process.pid}".encode()
    assert server.call(b"hello", timeout=PATIENCE).body == b"HELLO"
    process.kill()
    process.join(PATIENCE)
    queue.close()
    queue.join_thread()


def test_rights_arrive_through_a_pipe_to_the_own_process(own_task: machport.Task) -> None:
    """The receiver may be the sender."""
    receiving, sending = multiprocessing.Pipe(duplex=False)
    port = own_task.allocate()
    sender = port.make_send()
    with receiving, sending:
        sending.send([port.move(), sender.copy()])
        arrived, copy = receiving.recv()
    assert port.closed and isinstance(arrived, machport.ReceiveRight)
    assert copy == sender
    copy.send(b"hello")
    assert arrived.receive(PATIENCE).body == b"hello"


def test_rights_are_arguments_and_results_of_a_process_pool(own_task: machport.Task) -> None:
    port = own_task.allocate()
    with ProcessPoolExecutor(1, mp_context=SpawnContext()) as pool:
        work: Any = tell_twice
        back: Any = pool.submit(work, port.make_send().move(), b"from the pool").result(PATIENCE)
        assert port.receive(PATIENCE).body == b"from the pool"
        back.send(b"from here")
        assert port.receive(PATIENCE).body == b"from here"
        service: Any = pool.submit(make_service).result(PATIENCE)
        assert type(service) is machport.SendRight and service.task is own_task
        service.send(b"to the pool")
        assert pool.submit(receive_kept).result(PATIENCE) == b"to the pool"


def test_rights_are_arguments_and_results_of_a_pool_of_multiprocessing(own_task: machport.Task) -> None:
    port = own_task.allocate()
    with SpawnContext().Pool(1) as pool:
        back: Any = pool.apply_async(tell_twice, (port.make_send().move(), b"from the pool")).get(PATIENCE)
    assert port.receive(PATIENCE).body == b"from the pool"
    assert type(back) is machport.SendRight


def count(queue: DataQueue, number: int) -> None:
    for index in range(number):
        queue.enqueue(b"%d" % index)
    queue.close()


def test_an_end_of_a_data_queue_goes_through_pools_and_pipes(own_task: machport.Task) -> None:
    """Beside the arguments of a process, which need no daemon."""
    before = rights_of(own_task)
    with DataQueue(4096) as queue, ProcessPoolExecutor(1, mp_context=SpawnContext()) as pool:
        work: Any = count
        counting = pool.submit(work, queue.move_producer(), 1000)
        assert [bytes(entry) for entry in queue] == [b"%d" % index for index in range(1000)]
        counting.result(PATIENCE)
    assert rights_of(own_task) == before


def test_an_end_whose_ticket_nobody_claims_is_lost_with_its_sender(
    task: machport.Task, new_client: Callable[[str], Client]
) -> None:
    """T13."""
    client, inbox = new_client("sender"), task.allocate()
    client.do("import multiprocessing; from multiprocessing.reduction import ForkingPickler")
    client.do("queue = machport.DataQueue(100)")
    client.do("mach.mach_init(); data = bytes(ForkingPickler.dumps(queue.move_producer()))")
    with inbox, task.look_up("sender") as right:
        right.send(rights=[inbox.make_send().move()])
        client.do(f"out = inbox.receive({PATIENCE}).rights[0]; out.send(rights=[queue.move_consumer()])")
        carried = inbox.receive(PATIENCE).rights[0]
        assert isinstance(carried, machport.SendRight)
        with carried.open_data_queue() as queue:
            client.die()
            with pytest.raises(machport.PeerDied):
                queue.wait(PATIENCE)


def test_what_was_not_claimed_comes_back_when_it_is_recalled(own_task: machport.Task) -> None:
    """With its queue, as it was."""
    port = own_task.allocate()
    sender, once = port.make_send(), port.make_send_once()
    before = rights_of(own_task)
    moved = [port.move(), once.move(), sender.copy()]
    data = pickled(*moved)
    assert port.closed and once.closed
    sender.send(b"waits")
    for transfer in moved:
        transfer.recall()
    assert rights_of(own_task) == before
    assert port.receive(PATIENCE).body == b"waits"
    once.send(b"as before")
    assert port.receive(PATIENCE).body == b"as before"
    with pytest.raises(machport.InvalidRight, match="the ticket is not good"):
        pickle.loads(data)
    with pytest.raises(machport.InvalidArgument, match="not pickled"):
        moved[0].recall()


def test_what_has_arrived_is_not_recalled(own_task: machport.Task) -> None:
    port = own_task.allocate()
    transfer = port.move()
    (arrived,) = pickle.loads(pickled(transfer))
    with pytest.raises(machport.InvalidRight):
        transfer.recall()
    assert port.closed and not arrived.closed


def test_a_ticket_is_good_once(own_task: machport.Task) -> None:
    port = own_task.allocate()
    data = pickled(port.move())
    (arrived,) = pickle.loads(data)
    before = rights_of(own_task)
    with pytest.raises(machport.InvalidRight, match="claimed"):
        pickle.loads(data)
    assert rights_of(own_task) == before
    arrived.make_send().send(b"unharmed")


def test_a_forged_ticket_is_refused(own_task: machport.Task) -> None:
    """So is one of a child that waits for its process, and of no length that tickets have."""
    port = own_task.allocate()
    child = own_task.calls.task_create(own_task.name)
    tickets = [os.urandom(16), bytes(16), b"", b"four", own_task.calls.ticket(child)]
    transfer = port.move()
    pickled(transfer)
    for ticket in tickets:
        with pytest.raises(machport.InvalidRight):
            own_task.calls.claim(ticket)
    transfer.recall()
    port.make_send().send(b"unharmed")


def test_a_process_does_not_become_a_deposit(own_task: machport.Task) -> None:
    from machport.client.connection import Connection

    port = own_task.allocate()
    ticket = own_task.calls.deposit(port.name, c.MACH_MSG_TYPE_MOVE_RECEIVE)
    with pytest.raises(machport.InvalidRight, match="ticket"):
        Connection("thief", ticket)
    assert own_task.calls.claim(ticket)[1] == c.MACH_MSG_TYPE_PORT_RECEIVE


def test_rights_that_wait_go_when_their_sender_ends(
    task: machport.Task, own_task: machport.Task, new_client: Callable[[str], Client]
) -> None:
    """N28: a receive right goes where its port-destroyed request says."""
    client, back = new_client("sender"), task.allocate()
    port = task.allocate()
    port.request_port_destroyed(back)
    client.give("port", port.move())
    client.do("from multiprocessing.reduction import ForkingPickler")
    data = client.do("bytes(ForkingPickler.dumps(port.move()))")
    client.die()
    assert not back_from(back).right.closed
    with pytest.raises(machport.InvalidRight, match="its sender or process is gone"):
        pickle.loads(data)


def test_what_cannot_be_deposited_stays(own_task: machport.Task) -> None:
    port, dying = own_task.allocate(), own_task.allocate()
    dead, closed = dying.make_send(), port.make_send()
    move: machport.Transfer = closed.move()
    dying.close()
    closed.close()
    before = rights_of(own_task)
    with pytest.raises(machport.InvalidRight, match="the port is dead"):
        pickled(dead.move())
    with pytest.raises(machport.ClosedRight):
        pickled(move)
    with pytest.raises(machport.InvalidArgument, match=r"right\.move\(\)"):
        pickled(port)
    move = port.move()
    pickled(move)
    with pytest.raises(machport.ClosedRight, match="moved away"):
        pickled(move)
    move.recall()
    assert rights_of(own_task) == before
    with pytest.raises(machport.MachError):
        own_task.calls.deposit(port.name, 999)
    with pytest.raises(machport.InvalidName):
        own_task.calls.deposit(0x123403, c.MACH_MSG_TYPE_MOVE_SEND)
    assert rights_of(own_task) == before


def test_a_right_goes_into_no_other_pickle(own_task: machport.Task) -> None:
    port = own_task.allocate()
    with pytest.raises(machport.InvalidArgument, match="no other pickle"):
        pickle.dumps(port.move())
    port.make_send().send(b"still here")


def test_a_process_that_is_not_started_leaves_its_rights_here(own_task: machport.Task) -> None:
    """Another argument cannot be pickled; nothing leaked."""
    port = own_task.allocate()
    before = rights_of(own_task)
    unpicklable = lambda: None  # noqa: E731
    process = SpawnContext().Process(target=answer, args=(port.move(), unpicklable))
    for _ in range(2):
        with pytest.raises((AttributeError, pickle.PicklingError)):
            process.start()
        assert port.closed
    del process
    assert rights_of(own_task) == before
    port.make_send().send(b"still here")
    assert port.receive(PATIENCE).body == b"still here"


@pytest.mark.parametrize("context", CONTEXTS, ids=("spawn", "forkserver"))
def test_rights_go_with_a_process_that_dies_before_it_has_them(own_task: machport.Task, context: Context) -> None:
    """Promise 3, N28."""
    port, back = own_task.allocate(), own_task.allocate()
    port.request_port_destroyed(back)
    process = context.Process(target=leave_at_once, args=(DiesWhenUnpickled(), port.move()))
    process.start()
    assert back_from(back).right
    process.join(PATIENCE)
    assert process.exitcode == 7


def test_rights_go_with_a_process_that_is_dead_when_it_is_watched(own_task: machport.Task) -> None:
    """It was collected already."""
    port, back = own_task.allocate(), own_task.allocate()
    port.request_port_destroyed(back)
    transfer = port.move()
    process = SpawnContext().Process(target=leave_at_once, args=(DiesWhenUnpickled(), transfer))
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == 7
    with pytest.raises(machport.TimedOut):
        back.receive(0)
    del transfer
    assert back_from(back).right


def test_only_a_pidfd_watches_a_deposit(own_task: machport.Task) -> None:
    port = own_task.allocate()
    ticket = own_task.calls.deposit(port.name, c.MACH_MSG_TYPE_MOVE_RECEIVE)
    with open(__file__) as file, pytest.raises(machport.InvalidArgument, match="not a pidfd"):
        own_task.calls.watch_deposit(ticket, file.fileno())
    assert own_task.calls.claim(ticket)[1] == c.MACH_MSG_TYPE_PORT_RECEIVE


def test_a_forked_child_claims_nothing(own_task: machport.Task) -> None:
    """A7: it is no task, and what it was given stays where it was."""
    port = own_task.allocate()
    transfer = port.move()
    data = pickled(transfer)
    pid = os.fork()
    if pid == 0:
        try:
            pickle.loads(data)
        except machport.ForkedTask:
            os._exit(5)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    transfer.recall()
    port.make_send().send(b"still here")


def test_a_forked_child_is_told_that_it_has_a_move_and_no_right(own_task: machport.Task) -> None:
    """What is not pickled does not arrive."""
    transfer: Any = own_task.allocate().move()
    with pytest.raises(AttributeError, match="spawn or forkserver"):
        transfer.receive()


def test_a_right_of_another_daemon_is_refused(own_task: machport.Task, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("d") / "other.sock"
    with DaemonProcess(path) as other, machport.Task(path=other.path) as task:
        data = pickled(task.allocate().move())
        with pytest.raises(machport.InvalidArgument, match="waits with the daemon at"):
            pickle.loads(data)


def test_whoever_has_no_task_joins_the_daemon_that_the_right_waits_with(
    task: machport.Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pickled(task.allocate().move())
    mach.mach_init()
    monkeypatch.setenv("MACHPORT_SOCKET", "/nowhere")
    try:
        (arrived,) = pickle.loads(data)
        assert arrived.task is machport.task_self()
        assert arrived.task.path == task.path
    finally:
        mach.mach_init()


@pytest.mark.skipif(os.getuid() != 0, reason="needs to be two users")
def test_another_user_claims_nothing(socket_path: Any) -> None:
    """A daemon lets its user and root in; neither gets what the other sent to a process of its own."""
    socket_path.parent.chmod(0o777)
    with DaemonProcess(socket_path, user=NOBODY), machport.Task(path=socket_path) as task:
        port = task.allocate()
        transfer = port.move()
        data = pickled(transfer)
        source = f"""
import pickle
try: pickle.loads({data!r})
except machport.InvalidRight: print('refused')
"""
        done = subprocess.run(
            command_as(NOBODY, source, "import machport, pickle, machport.face.pickling"),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (done.stdout, done.stderr) == ("refused\n", "")
        transfer.recall()


def test_a_right_whose_port_dies_on_its_way_arrives_as_a_dead_name(own_task: machport.Task) -> None:
    """P7, as in a message."""
    port = own_task.allocate()
    data = pickled(port.make_send().move())
    port.close()
    (arrived,) = pickle.loads(data)
    assert isinstance(arrived, machport.DeadName)


def test_many_tickets_leave_nothing_behind(own_task: machport.Task, daemon: DaemonProcess) -> None:
    before, descriptors = rights_of(own_task), daemon.descriptors()
    for _ in range(200):
        port = own_task.allocate()
        (arrived,) = pickle.loads(pickled(port.move()))
        arrived.close()
    assert rights_of(own_task) == before
    assert daemon.descriptors() == descriptors


def test_a_killed_sender_of_many_leaves_nothing_behind(
    task: machport.Task, new_client: Callable[[str], Client]
) -> None:
    client = new_client("sender")
    deaths = task.allocate()
    client.do("from multiprocessing.reduction import ForkingPickler")
    senders = []
    for index in range(20):
        port = task.allocate()
        senders.append(port.make_send())
        senders[-1].request_dead_name(deaths)
        client.give("port", port.move())
        client.do(f"kept{index} = port.move(); ForkingPickler.dumps(kept{index}); None")
    client.signal(signal.SIGKILL)
    for _ in range(20):
        with deaths.receive(PATIENCE) as notice:
            assert isinstance(notice, machport.DeadNameNotification)


def test_multiprocessing_is_known_when_it_is_there_and_not_imported_before(daemon: DaemonProcess) -> None:
    """``import machport`` stays fast; a move that was made too early says what to do."""
    program = """
import sys, machport
port = machport.task_self().allocate()
early, end = port.move(), machport.DataQueue(100).move_producer()
print("multiprocessing" in sys.modules)
from multiprocessing.reduction import ForkingPickler
for thing in early, end:
    try: ForkingPickler.dumps(thing)
    except machport.InvalidArgument as error: print(str(error).split(";")[1])
ForkingPickler.dumps((port.move(), machport.DataQueue(100).move_producer()))
print(port.closed)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout.splitlines()[0] == "False"
    assert [line.split(":")[0] for line in done.stdout.splitlines()[1:]] == [
        " import multiprocessing before you call move() or copy()",
        " import multiprocessing before move_producer()",
        "True",
    ]
