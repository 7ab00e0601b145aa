"""The log: events with names and fields, one line each, and a daemon that goes on when nobody reads them."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from actors import PATIENCE, DaemonProcess, daemon_command

import machport
from machport.abi import reports as r
from machport.abi import traps as t
from machport.client.oversight import Oversight
from machport.server.log import JsonFormatter, Lines, TextFormatter, event


@pytest.fixture
def handler() -> Iterator[Lines]:
    lines = Lines()
    yield lines
    lines.close()


def record(words: str, *arguments: object, **fields: object) -> logging.LogRecord:
    logger = logging.getLogger("machport.daemon")
    extra = event("task_ends", **fields)
    return logger.makeRecord(logger.name, logging.INFO, "daemon.py", 1, words, arguments, None, extra=extra)


def test_an_event_as_json_has_its_name_its_fields_and_the_words_of_the_text() -> None:
    line = JsonFormatter().format(record("task %s ends", "a\nb", task=7, pid=12, reason=None))
    assert "\n" not in line
    told = json.loads(line)
    del told["time"]
    assert told == {
        "level": "info",
        "event": "task_ends",
        "task": 7,
        "pid": 12,
        "reason": None,
        "message": "task a\nb ends",
    }


def test_a_fault_is_one_line_with_its_traceback() -> None:
    try:
        raise ValueError("wrong")
    except ValueError as error:
        fault = record("it failed")
        fault.exc_info = (type(error), error, error.__traceback__)
    line = JsonFormatter().format(fault)
    assert "\n" not in line
    assert "ValueError: wrong" in json.loads(line)["traceback"]


def test_what_a_full_pipe_does_not_take_is_dropped_and_the_next_line_says_how_much(handler: Lines) -> None:
    read, write = os.pipe()
    handler.setFormatter(JsonFormatter())
    handler.open(write)
    written = 0
    while not handler.dropped:
        handler.emit(record("x" * 1000))
        written += 1
    handler.emit(record("y" * 1000))
    assert handler.dropped == 2
    data = b""
    os.set_blocking(read, False)
    while True:
        try:
            data += os.read(read, 1 << 20)
        except BlockingIOError:
            break
    handler.emit(record("after"))
    data += os.read(read, 1 << 20)
    told = [json.loads(line) for line in data.decode().splitlines()]
    assert len(told) == handler.written
    assert (told[-1]["message"], told[-1]["dropped"]) == ("after", 2)
    os.close(read)
    os.close(write)


def test_the_text_says_how_many_lines_were_dropped(handler: Lines) -> None:
    late = record("it ends")
    late.dropped = 3
    assert TextFormatter().format(late).endswith("machport.daemon it ends (3 lines before this one were dropped)")


def test_a_pipe_that_others_write_to_stays_as_they_know_it(handler: Lines) -> None:
    """Who shares the terminal, or the pipe, expects to wait."""
    read, write = os.pipe()
    handler.open(write)
    assert os.get_blocking(write)
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("kind", ["closed", "nobody reads", "full socket"])
def test_where_nothing_can_be_written_lines_are_dropped(handler: Lines, kind: str) -> None:
    if kind == "closed":
        handler.open(10_000)
    elif kind == "nobody reads":
        read, write = os.pipe()
        handler.open(write)
        os.close(read)
        os.close(write)
    else:
        ours, theirs = socket.socketpair()
        handler.open(ours.fileno())
        while not handler.dropped:
            handler.emit(record("x" * 1000))
        ours.close()
        theirs.close()
    before = handler.dropped
    handler.emit(record("lost"))
    assert handler.dropped == before + 1


def test_a_daemon_whose_log_nobody_reads_serves_on_and_counts_what_it_dropped(socket_path: Path) -> None:
    read, write = os.pipe()
    daemon = subprocess.Popen(
        daemon_command("--ready", "--verbose", "--socket", str(socket_path)), stdout=subprocess.PIPE, stderr=write
    )
    os.close(write)
    try:
        assert daemon.stdout is not None
        assert daemon.stdout.readline()
        dropped = 0
        while not dropped:
            with Oversight("x" * 100) as oversight:
                metrics = r.unpack_report(oversight.report(t.REPORT_METRICS), r.Metrics)
                dropped = metrics.log["dropped"]
        os.close(read)
        machport.Task(label="after").close()
        with Oversight() as oversight:
            assert r.unpack_report(oversight.report(t.REPORT_METRICS), r.Metrics).log["dropped"] > dropped
    finally:
        daemon.terminate()
        assert daemon.wait(PATIENCE) == 0
        assert daemon.stdout is not None
        daemon.stdout.close()


def test_the_daemon_tells_of_tasks_as_json_if_it_is_asked_to(socket_path: Path) -> None:
    with DaemonProcess(socket_path, "--log-format", "json") as daemon:
        machport.Task(label="client").close()
        with Oversight() as oversight:
            oversight.report(t.REPORT_METRICS)
        told = [json.loads(line) for line in daemon.log().splitlines()]
    begins, ends = [entry for entry in told if entry.get("label", "").startswith("client[")]
    assert (begins["event"], begins["pid"], begins["level"]) == ("task_begins", os.getpid(), "info")
    assert begins["executable"] == os.readlink("/proc/self/exe")
    assert (ends["event"], ends["task"], ends["reason"]) == ("task_ends", begins["task"], "its connection ended")


def test_the_level_decides_what_is_told(socket_path: Path) -> None:
    with DaemonProcess(socket_path, "--log-level", "warning") as daemon:
        machport.Task(label="client").close()
        with Oversight() as oversight:
            oversight.report(t.REPORT_METRICS)
        assert daemon.log() == ""
