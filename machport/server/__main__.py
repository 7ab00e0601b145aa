"""Start a daemon: ``python -m machport.server``, what ``machport daemon`` and a first use run."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import sys
from pathlib import Path

from machport.abi.errors import DaemonUnavailable
from machport.carrier.endpoint import VARIABLE, socket_path
from machport.server.daemon import Daemon
from machport.server.lock import leave, listen


def main(arguments: list[str] | None = None) -> int:
    """Run a daemon until it is stopped or idle; 1 with one sentence on stderr if it cannot start."""
    parser = argparse.ArgumentParser(prog="machport daemon", description="Hold the ports and rights of this user.")
    parser.add_argument("--socket", type=Path, help=f"listen here instead of on ${VARIABLE} or the usual place")
    parser.add_argument("--idle-exit", type=_seconds, metavar="SECONDS", help="end after this long without a task")
    parser.add_argument("--detach", action="store_true", help="return as soon as the daemon listens")
    parser.add_argument("--ready", action="store_true", help="print one line when the daemon listens")
    parser.add_argument("--verbose", action="store_true", help="log every task that begins or ends")
    options = parser.parse_args(arguments)
    if options.socket is not None:
        os.environ[VARIABLE] = str(options.socket)
    try:
        path = socket_path()
        listener, lock = listen(path)
    except DaemonUnavailable as error:
        print(f"machport daemon: {error.says}", file=sys.stderr)
        return 1
    if options.detach and _detach(lock):
        return 0
    logging.basicConfig(
        level=logging.INFO if options.verbose else logging.WARNING,
        format="%(asctime)s %(name)s %(message)s",
    )
    daemon = Daemon(listener, idle_exit=options.idle_exit)
    daemon.stop_on(signal.SIGTERM, signal.SIGINT)
    # A full collection walks over every port there is: tenths of a second for a million of them.  What refers to itself
    # in a circle and lives long is let go by hand, and the rest is young.
    gc.freeze()
    gc.set_threshold(10_000, 20, 1_000_000)
    if options.ready:
        print(f"listening on {path}", flush=True)
    try:
        daemon.run()
    finally:
        daemon.close()
        leave(path, lock)
    return 0


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
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
    return False


if __name__ == "__main__":
    sys.exit(main())
