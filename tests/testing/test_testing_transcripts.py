"""What happens in a world is recorded to the last trap, and is the same when it is done again."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from protocols import Counter, customer, lease_client, lease_server, supervisor

import machport
from machport import mach, testing
from machport.abi.traps import MsgTrap
from machport.replay.transcript import Step, TranscriptError, read
from machport.testing.transcript import Player, lines, play


def everything(world: testing.World) -> None:
    """Traps of every kind, waits of every end, and crashes."""
    task, other = world.task("main task"), world.task("other")
    port, small = task.allocate(), task.allocate(qlimit=1)
    right, tight = port.make_send(), small.make_send()
    service = other.check_in("org.example.service")
    with task.look_up("org.example.service") as to:
        to.send(b"body", rights=[port.make_send().move(), port.make_send_once().move()], memory=[b"far", b""])
        with pytest.raises(machport.TimedOut):
            to.call(b"", timeout=0.5)
    service.receive().close()
    right.send_many([b"1", b"22", b"333"])
    assert len(port.receive_many(2)) == 2
    with open(os.devnull) as file:
        os.close(task.fileport(file).open_file())
    for _ in range(2):
        with contextlib.suppress(machport.MachError):
            task.calls.mach_port_mod_refs(task.name, right.name, mach.MACH_PORT_RIGHT_SEND, -1)
    service.receive().close()
    with pytest.raises(testing.Deadlock):
        service.receive()
    idents: list[int] = []

    def send(tight: machport.SendRight) -> None:
        idents.append(threading.get_ident())
        tight.send_many([b"1", b"2", b"3"])

    sender = world.process(send, tight.copy())
    sender.join(timeout=1)
    task.calls.thread_abort(idents[0])
    assert small.receive().body == b"1"
    sender.kill()
    reader = world.process(small_receive, service.move())
    reader.join(timeout=1)
    other.calls.mach_ports_register(other.name, [])
    task.calls.port_label(small.name, "small")
    assert task.calls.describe(tight.name).label == "small"
    task.calls.forget(task.allocate().name, mach.MACH_PORT_RIGHT_RECEIVE)
    task.calls.claim(task.calls.deposit(tight.name, mach.MACH_MSG_TYPE_COPY_SEND))
    unreadable = MsgTrap(mach.MACH_SEND_MSG, mach_message(tight.name), [None])
    assert task.calls.mach_msg(unreadable).code == mach.MACH_SEND_INVALID_MEMORY
    with task.look_up("org.example.service") as to:
        to.send(b"handed over, and not read")
    reader.kill()
    other.close()


def mach_message(name: int) -> bytes:
    from machport.abi import message as layout

    return layout.pack(mach.MACH_MSG_TYPE_COPY_SEND, name, descriptors=[layout.memory_descriptor(3)])


def small_receive(port: machport.ReceiveRight) -> None:
    port.receive()


def leases(world: testing.World) -> None:
    counter = Counter()
    port = world.task("main").allocate()
    service = port.make_send()
    world.process(lease_server, port.move(), daemon=True)
    for _ in range(2):
        world.process(lease_client, service.copy(), counter, 2)


def work(world: testing.World) -> None:
    task = world.task("main")
    jobs, done = task.allocate(), task.allocate(qlimit=100)
    service = jobs.make_send()
    world.process(supervisor, jobs.move(), done.make_send().move(), 3, daemon=True)
    world.process(customer, service.move(), [b"a", b"b"], list[bytes]())
    world.run()


@pytest.mark.parametrize("scenario", [everything, leases, work])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_recorded_world_is_played_without_a_divergence(
    tmp_path: Path, scenario: Callable[[testing.World], object], seed: int
) -> None:
    path = tmp_path / "world.txt"
    world = testing.run(scenario, seed=seed)
    world.record(path)

    assert testing.replay(path) > 30
    (read_again,) = read(path)
    player = Player()
    for step in read_again.steps:
        player.perform(step)
    assert lines(f"seed={seed}", player.machine.events) == world.transcript()


def test_everything_that_may_happen_is_in_the_record() -> None:
    """Each kind of event, and each form of a trap."""
    world = testing.run(everything)
    assert {event.kind for event in world.machine.events} == {
        "task", "child", "trap", "expire", "interrupt", "abandon", "end", "time"
    }  # fmt: skip
    text = "\n".join(world.transcript())
    for part in (
        "= waits w",
        "memory=666172,empty",
        "memory=unreadable",
        "| w",
        "messages=",
        "words=none",
        "end 0x9 w",
        "forget",
    ):
        assert part in text, part


@pytest.mark.parametrize("crash", [None, ("lease_client", 3), ("lease_server", 5)])
def test_a_protocol_is_held_to_its_record(tmp_path: Path, crash: tuple[str, int] | None) -> None:
    path = tmp_path / "leases.txt"
    testing.run(leases, seed=5, crash=crash).record(path)
    assert testing.replay(path, leases) > 30


def test_a_protocol_that_does_something_else_now_is_told(tmp_path: Path) -> None:
    path = tmp_path / "leases.txt"
    testing.run(leases, seed=5).record(path)

    def changed(world: testing.World) -> None:
        world.task("main").allocate(qlimit=2)

    with pytest.raises(testing.Divergence) as caught:
        testing.replay(path, changed)
    told = str(caught.value).splitlines()
    assert told[0] == "world seed=5, operation or result 5"
    assert told[1].startswith("  then  > t0 mach_port_allocate ")
    assert told[2].startswith("  now   > t0 mach_port_construct ")


def test_a_protocol_that_stops_early_or_goes_on_is_told(tmp_path: Path) -> None:
    path = tmp_path / "short.txt"

    def short(world: testing.World) -> None:
        world.task("main").allocate()

    def longer(world: testing.World) -> None:
        world.task("main").allocate().make_send()

    testing.run(longer).record(path)
    with pytest.raises(testing.Divergence, match=r"then  > t0 mach_port_insert_right"):
        testing.replay(path, short)
    testing.run(short).record(path)
    with pytest.raises(testing.Divergence, match=r"now   > t0 mach_port_insert_right"):
        testing.replay(path, longer)


def test_another_interpreter_does_the_same(tmp_path: Path) -> None:
    """Nothing hangs on addresses or on how strings are hashed."""
    source = """
import sys
from machport import testing
from test_testing_transcripts import leases
testing.run(leases, seed=9, crash=("lease_client#2", 5)).record(sys.argv[1])
"""
    written = set()
    for number in ("1", "2", "3"):
        path = tmp_path / number
        environment = {**os.environ, "PYTHONHASHSEED": number, "PYTHONPATH": str(Path(__file__).parent)}
        subprocess.run([sys.executable, "-c", source, str(path)], env=environment, check=True, timeout=60)
        written.add(path.read_text())
    assert len(written) == 1


def test_a_record_is_the_same_before_and_after_the_end_of_its_world(tmp_path: Path) -> None:
    with testing.World(7) as world:
        leases(world)
        world.run()
        world.record(tmp_path / "before")
    world.record(tmp_path / "after")
    assert (tmp_path / "before").read_text() == (tmp_path / "after").read_text()


def test_a_kernel_that_answers_otherwise_is_told(tmp_path: Path) -> None:
    path = tmp_path / "world.txt"
    testing.run(leases).record(path)
    written = path.read_text().splitlines()
    index = next(i for i, line in enumerate(written) if line.startswith("= MACH_MSG_SUCCESS message="))
    written[index] = "= MACH_RCV_TIMED_OUT"
    path.write_text("\n".join(written))
    with pytest.raises(testing.Divergence, match=f"(?s)line {index}\n.*expected  MACH_RCV_TIMED_OUT"):
        testing.replay(path)
    (scenario,) = read(path)
    assert play(scenario)[1] is not None


def test_a_transcript_of_a_real_kernel_is_none_of_a_world(tmp_path: Path) -> None:
    path = tmp_path / "real.txt"
    path.write_text("scenario real\nend\n")
    with pytest.raises(TranscriptError, match="expected 'world NAME'"):
        testing.replay(path)


@pytest.mark.parametrize(
    "operation",
    [
        "task",
        "task late 0x0",
        "child x 0x0 t9 0x1",
        "child x 0x0 t0 0x12345",
        "expire w9",
        "mach_msg option=0x1",
        "mach_msg option=0x1 rcv_limit=0x0 rcv_name=0x0 timeout_ms=0x0 message=xyz",
        "no_such_call a=0x1",
        "mach_port_allocate task=0x103",
        "mach_port_allocate 0x103 0x1",
        "end x1",
        "send_many messages=0",
    ],
)
def test_an_operation_that_is_not_of_the_format_is_refused_with_its_line(operation: str) -> None:
    player = Player()
    player.perform(Step(1, 0, "task", ["main", "0x0,0x0,0x0,0x0,0x0,0x0,0x0,0x1,0x0,0x0"], []))
    name, *arguments = operation.split()
    with pytest.raises(TranscriptError, match=r"line 17: .*expected other arguments"):
        player.perform(Step(17, 1 if name == "child" else 0, name, arguments, []))
