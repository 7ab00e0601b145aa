"""The plugin for pytest, in runs of pytest of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

import machport
from machport import testing
from machport.testing.daemon import PrivateDaemon

pytest_plugins = ["pytester"]

_LOADED = ("-p", "machport.testing.plugin")


@pytest.fixture
def run(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeini("[pytest]\naddopts = --strict-markers -W error\n")
    return pytester


def passed(run: pytest.Pytester, source: str, *arguments: str) -> pytest.RunResult:
    run.makepyfile(source)
    return run.runpytest_inprocess(*_LOADED, *arguments)


def test_a_world_for_each_test_with_the_seed_of_its_marker(run: pytest.Pytester) -> None:
    source = """
        import pytest

        seen = []

        def test_one(machport_world):
            assert machport_world.seed == 0
            seen.append(machport_world)

        @pytest.mark.machport_seed(17)
        def test_two(machport_world):
            assert machport_world.seed == 17
            assert seen[0] is not machport_world
    """
    passed(run, source).assert_outcomes(passed=2)


def test_the_option_is_before_the_markers(run: pytest.Pytester) -> None:
    source = """
        import pytest

        @pytest.mark.machport_seed(17)
        def test_seed(machport_world):
            assert machport_world.seed == 5
    """
    passed(run, source, "--machport-seed=5").assert_outcomes(passed=1)
    result = passed(run, source)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*to repeat it: --machport-seed=17*"])


def test_what_a_task_still_holds_is_an_error_at_the_end(run: pytest.Pytester) -> None:
    source = """
        kept = []

        def test_leak(machport_world):
            kept.append(machport_world.task("holder").allocate())

        def test_closed(machport_world):
            with machport_world.task("holder") as task:
                task.allocate()

        def test_processes_end_before(machport_world):
            def serve(port):
                for request in port:
                    request.reply()

            task = machport_world.task()
            with task.allocate() as other:
                port = task.allocate()
                with port.make_send() as right:
                    machport_world.process(serve, port.move(), daemon=True)
                    right.call()

        def test_what_is_forgotten_is_given_up(machport_world):
            port = machport_world.task("forgetful").allocate()

        def test_failure_is_not_followed_by_leaks(machport_world):
            kept.append(machport_world.task("holder").allocate())
            assert 0
    """
    result = passed(run, source)
    result.assert_outcomes(passed=4, errors=1, failed=1)
    result.stdout.fnmatch_lines(
        ["*holder* holds receive right 0x203: the port allocated at *test_what*:4 in test_leak"]
    )


def test_broken_counts_are_an_error_at_the_end(run: pytest.Pytester) -> None:
    source = """
        def test_broken(machport_world):
            task = machport_world.task()
            port = task.allocate()
            for entry in machport_world.machine.members[0].space.entries.values():
                entry.port.srights += entry.name == port.name
            port.close()
            other = task.allocate()
            for entry in machport_world.machine.members[0].space.entries.values():
                entry.port.srights += entry.name == other.name
    """
    result = passed(run, source)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*BrokenInvariant*"])


def test_a_daemon_and_a_task_for_each_test(run: pytest.Pytester) -> None:
    source = """
        import os
        import machport

        seen = []

        def test_task(machport_daemon, machport_task):
            assert os.environ["MACHPORT_SOCKET"] == str(machport_daemon.path) == str(machport_task.path)
            port = machport.task_self().allocate()
            machport.task_self().register("org.example.port", port.make_send())
            machport_task.look_up("org.example.port").send(b"")
            seen.append((machport_daemon, machport_task))

        def test_another(machport_daemon):
            daemon, task = seen[0]
            assert task.closed
            assert not daemon.path.exists()
            assert daemon.pid != machport_daemon.pid
            assert machport.task_self().path == machport_daemon.path

        def test_a_killed_daemon_is_no_error(machport_daemon, machport_task):
            machport_daemon.kill()
    """
    passed(run, source).assert_outcomes(passed=3)


def test_nothing_heavy_is_loaded_before_a_test_asks() -> None:
    source = "import sys, machport.testing.plugin; print(*[n for n in sys.modules if n.startswith('machport.')])"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "machport.testing.plugin" in loaded
    assert not {name for name in loaded if name.startswith(("machport.kernel", "machport.server", "machport.replay"))}
    assert {name for name in loaded if name.startswith("machport.testing.")} == {"machport.testing.plugin"}


def test_everything_of_the_room_is_found_at_its_first_use() -> None:
    for name in testing.__all__:
        assert getattr(testing, name).__module__.startswith("machport.")
    assert set(testing.__all__) <= set(dir(testing))
    with pytest.raises(AttributeError, match="no attribute 'Wrld'"):
        testing.Wrld  # noqa: B018


def test_a_daemon_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(machport.DaemonUnavailable, match="does not start: it gave no reason"):
        PrivateDaemon()


def test_a_daemon_is_closed_twice_and_serves_until_then() -> None:
    with PrivateDaemon() as daemon, machport.Task(path=daemon.path) as task:
        task.allocate().close()
    daemon.close()
    assert not daemon.path.parent.exists()
