"""The daemon's settings: what a file may say, and what is said about one that says something else."""

from __future__ import annotations

from pathlib import Path

import pytest
from actors import DaemonProcess

from machport import InvalidArgument, LimitReached, Limits, Task
from machport.server.configuration import DEFAULTS, Configuration, DaemonLimits, parse, read


def test_what_a_file_does_not_say_is_as_by_default() -> None:
    assert parse("") == Configuration()
    assert parse("[task]\nnames = 5").task == DEFAULTS._replace(names=5)


def test_the_first_pattern_that_fits_a_label_counts() -> None:
    found = parse('[task]\nnames = 9\n[tasks."render*"]\nnames = 5\nbytes = 7\n[tasks."*"]\nnames = 6')
    assert found.limits_of("render-1") == DEFAULTS._replace(names=5, bytes=7)
    assert found.limits_of("shell").names == 6


def test_the_daemons_own_limits_are_a_table() -> None:
    daemon = parse("[daemon]\nconnections = 5\nhello_seconds = 2").daemon
    assert (daemon.connections, daemon.hello_seconds, daemon.silent) == (5, 2, 256)


def test_no_number_of_the_daemons_that_is_allowed_locks_everybody_out(socket_path: Path, tmp_path: Path) -> None:
    """The least of each: 0 is as by default where it is allowed, but for services, of which there are none then."""
    least = {"connections_per_second": 1, "silent": 1, "silent_per_process": 1, "hello_seconds": 1}
    path = tmp_path / "daemon.toml"
    path.write_text("[daemon]\n" + "".join(f"{key} = {least.get(key, 0)}\n" for key in DaemonLimits._fields))
    with DaemonProcess(socket_path, "--config", str(path)), Task(path=socket_path) as task:
        port = task.allocate()
        with pytest.raises(LimitReached, match="BOOTSTRAP_NO_MEMORY"):
            task.register("service", port.make_send())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[task]\nnmes = 5", "task.nmes is not known; there are names, messages"),
        ('[task]\nnames = "many"', "task.names is a number from 0 to 9223372036854775807, not 'many'"),
        ("[task]\nnames = -1", "task.names is a number from 0"),
        ("[task]\nnames = true", "task.names is a number from 0"),
        ("task = 5", "task is a table"),
        ("tasks = 5", "tasks has tables"),
        ('[tasks]\n"render*" = 5', r'tasks."render\*" is a table'),
        ("[deamon]", "deamon is not known; there are daemon, task, tasks"),
        ("names = [", "is not TOML"),
        ("[daemon]\nconnections_per_second = 0", "daemon.connections_per_second is a number from 1"),
        ("[daemon]\nsilent = 0", "daemon.silent is a number from 1 to 9223372036854775807, not 0"),
        ("[daemon]\nsilent_per_process = 0", "daemon.silent_per_process is a number from 1"),
        ("[daemon]\nhello_seconds = 0", "daemon.hello_seconds is a number from 1"),
    ],
)
def test_what_a_file_may_not_say_is_refused_with_the_key_and_what_is_allowed(
    text: str, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "daemon.toml"
    path.write_text(text)
    with pytest.raises(InvalidArgument, match=says) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="No such file"):
        read(tmp_path / "no.toml")


def test_the_usual_file_is_read_if_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert read(None) == Configuration()
    (tmp_path / "machport").mkdir()
    (tmp_path / "machport" / "daemon.toml").write_text("[task]\nnames = 7")
    assert read(None).task.names == 7


def test_limits_travel_as_words() -> None:
    limits = Limits(names=5, bytes=1 << 40)
    assert Limits.of_words(limits.words()) == limits
    with pytest.raises(InvalidArgument, match="18 words"):
        Limits.of_words([1])
    with pytest.raises(InvalidArgument, match="at most"):
        Limits.of_words([0, 1 << 31] * 9)
    for wrong in (-1, 1 << 63, True, "5"):
        with pytest.raises(InvalidArgument, match="names is a number"):
            Limits(names=wrong).words()  # type: ignore[arg-type]
