"""The explorer: right protocols survive every crash, and the mistake of a wrong one is found, with how to repeat it."""

from __future__ import annotations

from collections import Counter as Counted
from functools import partial

import pytest
from protocols import (
    Counter,
    careless_client,
    customer,
    forgetful_lease_server,
    hasty_supervisor,
    lease_client,
    lease_server,
    polite_client,
    supervisor,
)

import machport
from machport import testing

JOBS = [b"a", b"b", b"c"]


def leases(world: testing.World) -> None:
    counter = Counter()
    task = world.task("main")
    port = task.allocate()
    service = port.make_send()
    server = world.process(lease_server, port.move(), daemon=True)
    clients = [world.process(lease_client, service.copy(), counter, 2, label=f"client {n}") for n in range(2)]
    world.run()
    finished = [client for client in clients if client.exitcode == 0]
    assert len(finished) + (server.exitcode is None) >= len(clients)
    if server.exitcode is None:
        assert counter.value >= 2 * len(finished)


def test_a_lease_survives_every_crash_of_every_process() -> None:
    """Also of its server: clients learn it at once."""
    assert testing.explore(leases, seeds=range(8)) > 300


def test_no_crash_is_left_out() -> None:
    """One world for each step of each process, and one without a crash, by every seed."""
    expected = 0
    for seed in range(3):
        expected += 1 + sum(process.steps for process in testing.run(leases, seed=seed).processes)
    assert testing.explore(leases, seeds=range(3)) == expected


def test_a_lease_that_nobody_gives_back_is_found() -> None:
    def forgotten(world: testing.World) -> None:
        counter = Counter()
        port = world.task("main").allocate()
        service = port.make_send()
        world.process(forgetful_lease_server, port.move(), label="server", daemon=True)
        for number in range(2):
            world.process(polite_client, service.copy(), counter, 1, label=f"client {number}")

    assert testing.explore(forgotten, seeds=range(3), crashes=False) == 3
    with pytest.raises(testing.Counterexample) as caught:
        testing.explore(forgotten, crashes=["client 0", "client 1"])
    found = caught.value
    assert found.seed == 0
    assert found.crash is not None
    assert isinstance(found.__cause__, testing.Deadlock)
    text = str(found)
    assert f"forgotten fails with seed 0 and {found.crash[0]!r} killed before its step {found.crash[1]}: Dead" in text
    assert "waits in call for the answer of the port allocated at" in text
    assert f"to repeat it: machport.testing.run(forgotten, seed=0, crash={found.crash!r})" in text
    # And so it does.
    with pytest.raises(testing.Deadlock):
        testing.run(forgotten, seed=0, crash=found.crash)
    # One step earlier is the crash that the protocol withstands.
    testing.run(forgotten, seed=0, crash=(found.crash[0], found.crash[1] - 1))


def test_a_race_is_found_without_any_crash() -> None:
    def raced(world: testing.World) -> None:
        counter = Counter()
        port = world.task("main").allocate(qlimit=100)
        service = port.make_send()
        for number in range(2):
            world.process(careless_client, service.copy(), counter, 2, label=f"client {number}")
        world.run()
        assert counter.value == 4, "an update was lost"

    with pytest.raises(testing.Counterexample, match="an update was lost") as caught:
        testing.explore(raced, crashes=False)
    assert caught.value.crash is None
    assert f"machport.testing.run(raced, seed={caught.value.seed})" in str(caught.value)
    with pytest.raises(AssertionError, match="an update was lost"):
        testing.run(raced, seed=caught.value.seed)
    for seed in range(caught.value.seed):
        testing.run(raced, seed=seed)


def work(world: testing.World, boss: object = supervisor) -> None:
    answers: list[bytes] = []
    task = world.task("main")
    jobs, done = task.allocate(), task.allocate(qlimit=100)
    service = jobs.make_send()
    to_done = done.make_send()
    assert callable(boss)
    process = world.process(partial(boss), jobs.move(), to_done.move(), 3, label="supervisor", daemon=True)
    client = world.process(customer, service.move(), JOBS, answers)
    world.run()
    carried_out = Counted(message.body for message in received(done))
    if client.exitcode == 0 and process.exitcode is None:
        assert answers == [job.upper() for job in JOBS]
        assert set(carried_out) == set(JOBS)
    killed = sum(each.exitcode == -9 for each in world.processes)
    assert sum(carried_out.values()) <= len(JOBS) + killed


def received(port: machport.ReceiveRight) -> list[machport.Message]:
    try:
        return port.receive_many(100, timeout=0)
    except machport.TimedOut:
        return []


def test_no_job_is_lost_by_the_crash_of_a_worker() -> None:
    """The successor has the queue of the killed one (N28), and jobs that died with it are asked for again (N50)."""
    assert testing.explore(work, seeds=range(8), crashes=["worker", "customer"]) > 150


def test_no_job_hangs_by_any_crash() -> None:
    assert testing.explore(work, seeds=range(3)) > 80


def test_a_supervisor_that_asks_too_late_is_found() -> None:
    """The receive right that it wanted back is dead: jobs are left over."""
    with pytest.raises(testing.Counterexample, match=r"'worker' killed before its step \d+: AssertionError"):
        testing.explore(lambda world: work(world, hasty_supervisor), crashes=["worker"])


def test_labels_of_nobody_are_refused() -> None:
    there = r"\['customer', 'supervisor', 'worker'\]"
    with pytest.raises(machport.InvalidArgument, match=rf"no process is called \['wrker'\]; there were {there}"):
        testing.explore(work, seeds=[1], crashes=["wrker"])


def test_a_scenario_is_held_to_the_invariants() -> None:
    def broken(world: testing.World) -> None:
        port = world.task().allocate()
        (entry,) = [e for e in world.machine.members[0].space.entries.values() if e.name == port.name]
        assert entry.port is not None
        entry.port.srights += 1

    with pytest.raises(testing.BrokenInvariant):
        testing.run(broken)
