"""How a process ended is told as the system tells it, and asked again as long as it has not."""

from __future__ import annotations

import os
import pickle
import resource
import signal
import subprocess
import sys
import time

import pytest

from machport.peer.death import Death, wait_status
from machport.peer.introduction import Peer

PATIENCE = 30.0


def child(source: str) -> subprocess.Popen[bytes]:
    def no_core() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    return subprocess.Popen(
        [sys.executable, "-c", f"import os, sys\n{source}"], stdin=subprocess.PIPE, preexec_fn=no_core
    )


def until_dead(pidfd: int) -> None:
    os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT)


@pytest.mark.parametrize("collected", [False, True])
@pytest.mark.parametrize(
    ("source", "number", "code", "text"),
    [
        ("sys.exit(3)", None, 3, "exited with 3"),
        ("", None, 0, "exited with 0"),
        ("os.kill(os.getpid(), 9)", signal.SIGKILL, None, "was killed by SIGKILL"),
        ("os.kill(os.getpid(), 11)", signal.SIGSEGV, None, "was killed by SIGSEGV"),
        ("os.kill(os.getpid(), 40)", 40, None, "was killed by signal 40"),
    ],
)
def test_a_death_tells_signal_or_exit_code(
    collected: bool, source: str, number: int | None, code: int | None, text: str
) -> None:
    """T15: also after the process was collected, where the system still knows."""
    with child(source) as process:
        pidfd = os.pidfd_open(process.pid)
        until_dead(pidfd)
        if collected:
            process.wait(PATIENCE)
            if wait_status(pidfd) is None:
                os.close(pidfd)
                pytest.skip("this system does not tell how a collected process ended")
        death = Death(process.pid, "label", pidfd)
        assert (death.signal, death.exit_code) == (number, code)
        assert str(death) == f"process {process.pid} (label) {text}"
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(pidfd)
        again = pickle.loads(pickle.dumps(death))
        assert (str(again), again.when, again.pid) == (str(death), death.when, death.pid)
        assert death.when <= time.time()


def test_what_is_not_known_yet_may_be_known_later() -> None:
    with child("input()") as process:
        pass_on = os.pidfd_open(process.pid)
        death = Death(process.pid, "", pass_on)
        assert (death.signal, death.exit_code) == (None, None)
        assert str(death) == f"process {process.pid} lives"
        process.kill()
        until_dead(pass_on)
        assert death.signal == signal.SIGKILL


def test_of_a_death_without_a_pidfd_nothing_more_is_known() -> None:
    death = Death(5, "", -1)
    assert (death.signal, death.exit_code) == (None, None)
    assert repr(death) == "<Death process 5 has ended, and the system has not said how>"


def test_a_peer_is_dead_when_its_process_is_be_it_collected_or_not() -> None:
    with child("input()") as process:
        peer = Peer(process.pid, "who", 0, os.pidfd_open(process.pid), None)
        assert not peer.is_dead()
        process.kill()
        until_dead(peer.fileno())
        assert peer.is_dead()
        process.wait(PATIENCE)
        assert peer.is_dead()
        assert peer.death().pid == process.pid
        peer.close()
        assert peer.fileno() == -1
        assert not peer.is_dead()
