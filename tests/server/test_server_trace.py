"""A trace is what the kernel was asked, and the same again gives the same answers."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import resource
import select
import socket
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from actors import PATIENCE, Client, DaemonProcess, RawTask

import machport
from machport.abi import constants as c
from machport.abi import reports as r
from machport.abi import traps as t
from machport.client.oversight import Oversight
from machport.replay import transcript
from machport.server import tracestate
from machport.server.outlet import Outlet
from machport.server.tracing import Filters, Tracer
from machport.testing import World
from machport.tracing.chrome import Exporter
from machport.tracing.replaying import play

NewClient = Callable[[str], Client]


@pytest.fixture
def traced(socket_path: Path, tmp_path: Path) -> Iterator[Path]:
    """Where a daemon writes a trace from its start on."""
    path = tmp_path / "trace"
    with DaemonProcess(socket_path, "--trace", str(path)):
        yield path


def replayed(path: Path) -> transcript.Scenario:
    """The one scenario of a trace, which was played without a divergence."""
    (scenario,) = transcript.read(path)
    assert scenario.is_trace
    count, divergence = play(scenario)
    assert divergence is None, str(divergence)
    assert count == len(scenario.steps)
    return scenario


def settle(oversight: Oversight) -> None:
    """What was done before has been written to the file."""
    for _ in range(2):
        oversight.report(t.REPORT_METRICS)


def a_busy_day(task: machport.Task, new_client: NewClient) -> None:
    """Requests, rights, notifications, waits that end in every way, children, and deaths."""
    server, user = new_client("server"), new_client("user")
    user.give("server", server.inbox.copy())
    server.begin("inbox.receive().reply(b'pong')")
    assert user.do("bytes(server.call(b'ping').body)") == b"pong"
    server.finish()
    user.do("watch = task.allocate(); server.request_dead_name(watch); many = [task.allocate() for _ in range(5)]")
    with pytest.raises(AssertionError, match="TimedOut"):
        user.do("inbox.receive(0.01)")
    for number in range(4):
        server.inbox.send(bytes([number]) * number * 30_000)
    server.do("[inbox.receive().close() for _ in range(3)]")
    user.do("[port.close() for port in many]")
    with task.spawn(be_a_child, server.inbox.copy()) as child:
        child.join(PATIENCE)
        assert child.exitcode == 0
    server.begin("(mark(), [inbox.receive().close() for _ in range(100)])")
    server.wait_for_mark()
    server.die()
    user.do("watch.receive(30).close()")
    user.die()


def be_a_child(right: machport.SendRight) -> None:
    right.send(b"from a child")


def test_a_trace_from_the_start_is_played_again_without_a_divergence(
    traced: Path, task_of_traced: machport.Task, new_traced_client: NewClient
) -> None:
    a_busy_day(task_of_traced, new_traced_client)
    with Oversight() as oversight:
        settle(oversight)
        scenario = replayed(traced)
    operations = {step.operation for step in scenario.steps}
    assert {"task", "mach_msg", "serve", "expire", "task_create", "claimed", "end"} <= operations


@pytest.fixture
def task_of_traced(traced: Path) -> Iterator[machport.Task]:
    with machport.Task(label="test") as task:
        yield task


@pytest.fixture
def new_traced_client(task_of_traced: machport.Task) -> Iterator[NewClient]:
    with contextlib.ExitStack() as clients:
        yield lambda name: clients.enter_context(Client(task_of_traced, name))


def test_a_change_in_a_trace_is_a_divergence(traced: Path, task_of_traced: machport.Task) -> None:
    """The tests above can fail."""
    task_of_traced.allocate()
    with Oversight() as oversight:
        settle(oversight)
        text = traced.read_text()
    name = text.rsplit("= KERN_SUCCESS 0x", 1)
    changed = traced.with_name("changed")
    changed.write_text("= KERN_SUCCESS 0xf".join(name))
    (scenario,) = transcript.read(changed)
    assert play(scenario)[1] is not None


def test_a_trace_that_was_cut_off_is_played_up_to_there(traced: Path, task_of_traced: machport.Task) -> None:
    """Its daemon may have been killed; that is when people want it."""
    task_of_traced.allocate()
    with Oversight() as oversight:
        settle(oversight)
        data = traced.read_bytes()
    cut_off = traced.with_name("cut_off")
    cut_off.write_bytes(data[: data.rindex(b"> ") + 5])
    (scenario,) = transcript.read(cut_off)
    assert play(scenario) == (len(scenario.steps), None)


def traced_lines(oversight: Oversight, action: Callable[[], object], **filters: Any) -> list[str]:
    """The lines of a trace of an action, to a pipe that is read when it is over."""
    read, write = os.pipe()
    oversight.trace(write, **filters)
    os.close(write)
    action()
    oversight.close()
    with open(read) as file:
        return file.read().splitlines()


def test_a_trace_that_begins_in_the_middle_begins_with_the_state(
    task: machport.Task, new_client: NewClient, tmp_path: Path
) -> None:
    """Calls that wait, messages in queues, senders before a full one, rights and tasks on their way, a file."""
    server, user, waiter = new_client("server"), new_client("user"), new_client("waiter")
    user.give("server", server.inbox.copy())
    waiter.give("server", server.inbox.copy())
    user.do("watch = task.allocate(); server.request_dead_name(watch)")
    user.do("ticket = task.calls.deposit(server.name, 19)")
    user.do("child = task.calls.task_create(task.calls.mach_task_self())")
    for number in range(5):
        server.inbox.send(bytes([number]))
    user.begin("(mark(), watch.receive(60).close())")
    user.wait_for_mark()
    waiter.begin("(mark(), server.send(b'blocked'))")
    waiter.wait_for_mark()
    with Oversight() as other:
        while r.unpack_report(other.report(t.REPORT_METRICS), r.Metrics).now["blocked"] < 3:
            pass

    def act() -> None:
        server.do("[inbox.receive().close() for _ in range(3)]")
        waiter.finish()
        server.die()
        user.finish()
        user.do("kept = task.allocate()")
        user.die()
        waiter.die()

    lines = traced_lines(Oversight(), act)
    assert lines[0].startswith("trace ")
    path = tmp_path / "trace"
    path.write_text("\n".join(lines) + "\n")
    scenario = replayed(path)
    assert scenario.steps[0].operation == "state"
    ended = [step.task for step in scenario.steps if step.operation == "end"]
    assert len(ended) == 5, "three clients, and what one of them had made: a child and a deposit"


def test_a_state_that_is_too_large_is_not_written_down(task: machport.Task, tmp_path: Path) -> None:
    """The daemon would stand still meanwhile."""
    ports = task.allocate_many(tracestate.STATE_MAX // 2)
    lines = traced_lines(Oversight(), lambda: task.allocate())
    assert lines[0].startswith("record ")
    assert "too much" in lines[1]
    assert any("mach_reply_port" in line or "mach_port_allocate" in line for line in lines)
    assert len(ports) == tracestate.STATE_MAX // 2


def test_what_is_no_state_is_an_error_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    for word in ("nonsense", "AAAA", base64.b64encode(zlib.compress(b"machport daemon")).decode()):
        path.write_text(f"trace x\n> t0 state {word}\n= KERN_SUCCESS\nend\n")
        (scenario,) = transcript.read(path)
        with pytest.raises(transcript.TranscriptError, match="line 2"):
            play(scenario)


def test_filters_give_what_was_asked_for_and_such_a_record_is_not_played(
    task: machport.Task, new_client: NewClient, tmp_path: Path
) -> None:
    server = new_client("server")
    server.do("inbox.set_label('jobs')")

    def act() -> None:
        server.inbox.send(b"job")
        server.do("inbox.receive().close(); task.allocate()")

    cases: list[tuple[dict[str, Any], set[str]]] = [
        ({"calls": ["mach_port_allocate"]}, {"mach_port_allocate"}),
        ({"ports": ["jo*"]}, {"mach_msg"}),
    ]
    for filters, wanted in cases:
        lines = traced_lines(Oversight(), act, **filters)
        steps = [line.split()[2] for line in lines if line.startswith("> ")]
        assert steps, lines
        assert set(steps) <= wanted | {"collect"}
    whose: list[dict[str, Any]] = [{"pid": server.pid}, {"tasks": ["server*"]}]
    for filters in whose:
        lines = traced_lines(Oversight(), act, **filters)
        with Oversight() as oversight:
            tasks = r.unpack_report(oversight.report(t.REPORT_TASKS), r.Tasks).tasks
        number = next(one.task for one in tasks if one.pid == server.pid)
        assert {line.split()[1] for line in lines if line.startswith("> ")} <= {f"t{number}", "t0"}
    path = tmp_path / "record"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(transcript.TranscriptError, match="only a part"):
        list(transcript.read(path))


@pytest.mark.parametrize(
    "filters", [{"tasks": ["nobody*"]}, {"ports": ["nothing*"]}, {"calls": ["mach_port_allocate"]}, {"pid": 1}], ids=str
)
def test_calls_that_wait_when_a_trace_begins_are_filtered_like_others(
    task: machport.Task, new_client: NewClient, filters: dict[str, Any]
) -> None:
    """Their ends have messages in them."""
    server, full = new_client("server"), task.allocate(qlimit=1)
    server.give("right", full.make_send().move())
    server.do("right.send(b'first')")
    server.begin("[before_sleeping(mark), right.send(b'secret'), inbox.receive().close()]")
    server.wait_for_mark()

    def act() -> None:
        full.receive(PATIENCE)
        server.inbox.send(b"secret")
        server.finish()

    lines = traced_lines(Oversight(), act, **filters)
    assert not [line for line in lines if line.startswith(("> ", "| "))], lines


def test_filters_match_all_that_they_name() -> None:
    assert Filters().are_none
    words = t.TRACE.unpack(t.TRACE.pack(7, words=t.pack_texts("a*,b", "", "c")))[1]
    filters = Filters.of_words(7, words)
    assert not filters.are_none
    assert (filters._tasks, filters._pid, filters._calls, filters._ports) == (["a*", "b"], 7, frozenset(), ["c"])


def test_behind_a_reader_that_is_too_slow_steps_are_dropped_and_counted(task: machport.Task, tmp_path: Path) -> None:
    """The daemon does not wait, and what was dropped is not played."""
    read, write = os.pipe()
    with Oversight() as oversight, Oversight() as other:
        oversight.trace(write)
        os.close(write)
        port = task.allocate()
        right = port.make_send()
        lost = 0
        while not lost:
            right.send(bytes(1_000_000))
            port.receive().close()
            lost = r.unpack_report(other.report(t.REPORT_METRICS), r.Metrics).trace["lost"]
        with open(read, "rb") as file:
            data = b""
            while b"# lost " not in data:
                task.allocate().close()
                ready, _, _ = select.select([file], [], [], 0)
                if ready:
                    data += os.read(file.fileno(), 1 << 20)
            assert int(data.split(b"# lost ")[1].split()[0]) >= lost


def test_a_trace_ends_with_its_reader(task: machport.Task) -> None:
    read, write = os.pipe()
    with Oversight() as oversight, Oversight() as other:
        oversight.trace(write)
        os.close(write)
        os.close(read)
        while r.unpack_report(other.report(t.REPORT_METRICS), r.Metrics).trace["active"]:
            task.allocate().close()


def test_there_is_one_trace_at_a_time_and_it_needs_a_pipe(task: machport.Task, tmp_path: Path) -> None:
    read, write = os.pipe()
    with Oversight() as oversight, Oversight() as other, (tmp_path / "file").open("w") as file:
        with pytest.raises(machport.MachError) as caught:
            oversight.trace(file.fileno())
        assert caught.value.code == c.KERN_INVALID_ARGUMENT
        oversight.trace(write)
        with pytest.raises(machport.MachError) as caught:
            other.trace(write)
        assert caught.value.code == c.KERN_RESOURCE_SHORTAGE
    os.close(read)
    os.close(write)


def check_events(events: list[dict[str, Any]]) -> None:
    """What the description of the format asks of each event."""
    flows: dict[int, list[str]] = {}
    for event in events:
        assert isinstance(event["name"], str)
        assert event["ph"] in "XMisf"
        assert isinstance(event["ts"], int | float)
        assert event["ts"] >= 0
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        if event["ph"] == "X":
            assert event["dur"] > 0
        elif event["ph"] == "M":
            assert (event["name"], type(event["args"]["name"])) == ("process_name", str)
        elif event["ph"] == "i":
            assert event["s"] in "gpt"
        else:
            flows.setdefault(event["id"], []).append(event["ph"])
            assert any(
                call["ph"] == "X"
                and (call["pid"], call["tid"]) == (event["pid"], event["tid"])
                and call["ts"] <= event["ts"] <= call["ts"] + call["dur"] + 0.001
                for call in events
            ), "a flow begins and ends in a call"
    assert all(phases[0] == "s" for phases in flows.values() if len(phases) > 1)


def test_events_for_viewers_have_calls_messages_notifications_and_deaths(
    traced: Path, task_of_traced: machport.Task, new_traced_client: NewClient
) -> None:
    a_busy_day(task_of_traced, new_traced_client)
    with Oversight() as oversight:
        settle(oversight)
        events = list(Exporter().events(traced.read_text().splitlines()))
    check_events(events)
    names = {event["args"]["name"].partition("[")[0] for event in events if event["ph"] == "M"}
    assert {"bootstrap", "server", "user", "test"} <= names
    assert {"mach_msg", "mach_reply_port"} <= {event["name"] for event in events if event["ph"] == "X"}
    assert any(event["name"] == "blocked" for event in events)
    assert {"death", "notification dead_name"} <= {event["name"] for event in events if event["ph"] == "i"}
    sent = {event["id"] for event in events if event["ph"] == "s"}
    received = {event["id"] for event in events if event["ph"] == "f"}
    assert received
    assert received <= sent


def test_a_recorded_world_can_be_looked_at_too(tmp_path: Path) -> None:
    with World(seed=1) as world:
        task = world.task("client")
        port = task.allocate()
        port.make_send().send(b"hello")
        port.receive(0).close()
        lines = world.transcript()
    events = list(Exporter().events(lines))
    check_events(events)
    assert "mach_msg" in {event["name"] for event in events}


def test_the_command_writes_what_replay_reads_and_a_viewer(socket_path: Path, tmp_path: Path) -> None:
    out, chrome = tmp_path / "out", tmp_path / "chrome.json"
    command = [sys.executable, "-m", "machport", "trace", "--out", str(out), "--chrome", str(chrome)]
    done = subprocess.run([*command, "--seconds", "0"], capture_output=True, text=True, check=False)
    assert (done.returncode, "no daemon runs" in done.stderr) == (1, True)
    with DaemonProcess(socket_path):
        tracing = subprocess.Popen([*command, "--seconds", "2"], stderr=subprocess.PIPE, text=True)
        with Oversight() as oversight:
            while not r.unpack_report(oversight.report(t.REPORT_METRICS), r.Metrics).trace["active"]:
                pass
        with machport.Task(label="client") as task:
            task.allocate().close()
        _, said = tracing.communicate(timeout=PATIENCE)
    assert tracing.returncode == 0, said
    assert said.endswith(" steps\n")
    assert out.read_text().endswith("\nend\n")
    events = json.loads(chrome.read_text())["traceEvents"]
    check_events(events)
    assert any(event["name"] == "mach_port_allocate" for event in events)


def test_a_trace_to_a_closed_pipe_is_over() -> None:
    from machport.kernel.kernel import Kernel
    from machport.server.bootstrap import Bootstrap

    read, write = os.pipe()
    kernel = Kernel()
    tracer = Tracer(kernel, Bootstrap(kernel), Outlet(write))
    os.close(read)
    os.close(write)
    tracer.flush()
    assert tracer.is_over
    tracer.close()
    assert kernel.notices is None


@pytest.mark.parametrize("make", [os.pipe, lambda: tuple(sock.detach() for sock in socket.socketpair())])
def test_nobody_waits_for_who_reads_no_trace_and_lets_it_block(
    task: machport.Task, make: Callable[[], tuple[int, int]]
) -> None:
    """The descriptor is shared with whoever asked for the trace, who may say so at any time."""
    read, write = make()
    with Oversight() as oversight:
        oversight.trace(write)
        os.set_blocking(write, True)
        for _ in range(20):
            task.calls.many(t.GET_REFS, [(task.name, task.name, c.MACH_PORT_RIGHT_SEND)] * 500)
        with Oversight() as other:
            assert r.unpack_report(other.report(t.REPORT_METRICS), r.Metrics).trace["records"] > 9000
    os.close(read)
    os.close(write)


def hit_the_limit(right: machport.SendRight) -> None:
    ports = []
    try:
        while True:
            ports.append(right.task.allocate())
    except machport.LimitReached:
        right.send(len(ports).to_bytes(4, "little"))


def test_limits_are_met_again_and_files_are_there_again(traced: Path, task_of_traced: machport.Task) -> None:
    """A child's limits are a step; a file behind a port is made by the kernel, too."""
    inbox = task_of_traced.allocate()
    with task_of_traced.spawn(hit_the_limit, inbox.make_send().move(), limits=machport.Limits(names=20)) as child:
        assert int.from_bytes(inbox.receive(PATIENCE).body, "little") < 20
        child.join(PATIENCE)
    with task_of_traced.fileport(0) as file:
        inbox.make_send().send(b"", rights=[file.copy()])
        inbox.receive(PATIENCE).close()
    with Oversight() as oversight:
        settle(oversight)
        operations = {step.operation for step in replayed(traced).steps}
    assert {"limits", "fileport_makeport"} <= operations


def test_what_the_daemon_refuses_by_itself_is_no_step(socket_path: Path, tmp_path: Path) -> None:
    """The kernel was not asked: here there is no descriptor left for one more file."""
    path = tmp_path / "trace"

    def lower_limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    with DaemonProcess(socket_path, "--trace", str(path), preexec_fn=lower_limit), RawTask(socket_path) as raw:
        codes = set()
        with open(os.devnull) as file:
            for _ in range(64):
                codes.add(t.number_of(raw.trap(t.FILEPORT_MAKEPORT.pack(), (file.fileno(),))))
        assert codes == {0, c.KERN_RESOURCE_SHORTAGE}
    replayed(path)
