"""Start a daemon: ``python -m machport.server``, what ``machport daemon`` and a first use run."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from machport.abi.errors import DaemonUnavailable, InvalidArgument
from machport.carrier.endpoint import VARIABLE, socket_path
from machport.server import log
from machport.server.configuration import default_path, read
from machport.server.daemon import Daemon
from machport.server.lock import Place, leave, listen, name
from machport.server.outlet import Outlet
from machport.server.settings import Settings
from machport.server.supervisor import tell_ready
from machport.server.takeover import Interrupted, refuse, take_over
from machport.server.task_ports import CREATOR, POLICIES


def main(arguments: list[str] | None = None) -> int:
    """Run a daemon until it is stopped or idle; 1 with one sentence on stderr if it cannot start."""
    parser = argparse.ArgumentParser(
        prog="machport daemon",
        description="Hold the ports and rights of this user.",
        epilog="machport daemon --upgrade [--socket SOCKET]: let a new process, which runs the program as it is "
        "installed now, take the place of the daemon that runs; SIGHUP does the same.",
    )
    parser.add_argument("--socket", type=Path, help=f"listen here instead of on ${VARIABLE} or the usual place")
    parser.add_argument("--idle-exit", type=_seconds, metavar="SECONDS", help="end after this long without a task")
    parser.add_argument(
        "--task-for-pid",
        choices=POLICIES,
        default=CREATOR,
        help="who of one user may have the port of a process's task: its creator alone (and root), or all",
    )
    parser.add_argument("--detach", action="store_true", help="return as soon as the daemon listens")
    parser.add_argument("--ready", action="store_true", help="print one line when the daemon listens")
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"limits, as TOML; {default_path()} otherwise")
    parser.add_argument("--verbose", action="store_true", help="as --log-level info: every task that begins or ends")
    parser.add_argument("--log-format", choices=log.FORMATS, default="text", help="how events are written to stderr")
    parser.add_argument("--log-level", choices=log.LEVELS, help="the least that is logged: warning, if not said")
    parser.add_argument(
        "--trace", type=Path, metavar="FILE", help="write a transcript of all that is done, from the start"
    )
    parser.add_argument("--take-over", type=int, metavar="FD", help=argparse.SUPPRESS)
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    try:
        settings = Settings(options.idle_exit, options.task_for_pid, read(options.config))
        if options.take_over is not None:
            _log_as(options)
            daemon = take_over(options.take_over, settings, arguments=arguments[:-2], prepare=_prepare)
        else:
            found = _begin(options, settings, arguments)
            if found is None:
                return 0
            daemon = found
            _prepare(daemon)
    except (DaemonUnavailable, InvalidArgument) as error:
        if options.take_over is not None:
            # The other daemon says it to whoever asked, and in the log.
            refuse(options.take_over, error.says)
            return 1
        print(f"machport daemon: {error.says}", file=sys.stderr)
        return 1
    except (Interrupted, ConnectionError):
        return 1
    if options.ready and options.take_over is None:
        print(f"listening on {daemon.place.path}", flush=True)
    tell_ready()
    try:
        daemon.run()
    finally:
        if not daemon.is_replaced:
            daemon.close()
            leave(*daemon.place)
    if daemon.is_replaced:
        # Nothing is taken down: the sockets are another process's now, and memory goes quicker with the process.
        logging.shutdown()
        os._exit(0)
    return 0


def _prepare(daemon: Daemon) -> None:
    """What is to be done in a process before it serves."""
    daemon.stop_on(signal.SIGTERM, signal.SIGINT)
    daemon.upgrade_on(signal.SIGHUP)
    # A full collection walks over every port there is: tenths of a second for a million of them.  What refers to itself
    # in a circle and lives long is let go by hand, and the rest is young.
    gc.freeze()
    gc.set_threshold(10_000, 20, 1_000_000)


def _begin(options: argparse.Namespace, settings: Settings, arguments: Sequence[str]) -> Daemon | None:
    """A daemon that listens; None in the process that only started it.

    Raises:
        DaemonUnavailable: it cannot listen there.
    """
    if options.socket is not None:
        os.environ[VARIABLE] = str(options.socket)
    path = socket_path()
    if options.config is not None:
        # Of two the last counts.  Whoever takes this daemon's place may begin in another folder.
        arguments = [*arguments, "--config", str(options.config.absolute())]
    trace = _open_trace(options.trace) if options.trace is not None else -1
    listener, lock = listen(path)
    if options.detach and _detach(lock):
        return None
    # Not before: whoever waits for the end of our output waits for a copy of standard error, too.
    _log_as(options)
    daemon = Daemon(listener, Place(path, lock), settings, arguments=arguments)
    if options.trace is not None:
        outlet = Outlet(trace)
        os.close(trace)
        daemon.traces.begin(outlet, is_file=True)
    return daemon


def _log_as(options: argparse.Namespace) -> None:
    log.set_up(options.log_format, options.log_level or ("info" if options.verbose else "warning"))


def _open_trace(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DaemonUnavailable(f"cannot write {path}: {error.strerror}") from None


def _seconds(text: str) -> float:
    seconds = float(text)
    if not seconds >= 0:
        raise argparse.ArgumentTypeError(f"{text} is not 0 or more seconds")
    return seconds


def _detach(lock: int) -> bool:
    """Go on in a child of init; True in the process that returns to its caller."""
    if os.fork():
        return True
    os.setsid()
    os.chdir("/")
    name(lock)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
    return False


if __name__ == "__main__":
    sys.exit(main())
