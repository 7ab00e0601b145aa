"""Taking the place of a running daemon, which has started this process; ``upgrade`` is its side, and has the order.

Nothing here touches what a client can see before the other daemon says so, or is dead.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import mmap
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from machport.abi import traps as t
from machport.abi.errors import LimitReached
from machport.abi.release import RELEASE
from machport.carrier import hello
from machport.server import snapshot
from machport.server.daemon import Daemon
from machport.server.dispatch import Answer
from machport.server.fault import reached
from machport.server.lock import name
from machport.server.log import event
from machport.server.settings import Settings
from machport.server.upgrade import hear, say

_log: Final = logging.getLogger("machport.daemon")
#: Characters of why a process cannot take over.
_WHY_MAX: Final = 1024


class Interrupted(Exception):
    """The other daemon died before it had said all, or does not want to be replaced any more."""


def refuse(descriptor: int, why: str) -> None:
    """Tell the daemon at the other end of a socket, before anything else, that this process cannot take its place."""
    with contextlib.suppress(OSError), socket.socket(fileno=descriptor) as sock:
        _say_no(sock, why)


def _say_no(sock: socket.socket, why: str) -> None:
    """Raises OSError if nobody hears it."""
    # It goes on to whoever asked, and into a log: a name of a file may be no text, and a key of one may be long.
    say(sock, "no", why=why.encode(errors="replace").decode()[:_WHY_MAX])


def take_over(
    descriptor: int, settings: Settings, *, arguments: Sequence[str], prepare: Callable[[Daemon], None]
) -> Daemon:
    """Become the daemon in place of the one at the other end of a socket; that is dead, or ends, when this returns.

    Args:
        settings, arguments: as ``Daemon``.
        prepare: called with the daemon when it could begin, and nobody knows of it yet.

    Raises:
        Interrupted: that one goes on, or died before it had said all.
    """
    # Perhaps it was sent to every process of the daemon's.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with socket.socket(fileno=descriptor) as sock:
        os.set_inheritable(descriptor, False)
        # Before the other one stops serving.
        snapshot.load()
        reached("new begins")
        say(sock, "hello", version=RELEASE, reads=snapshot.READS, speaks=[hello.VERSION])
        # Nothing of what is made now is garbage.
        gc.disable()
        try:
            given, descriptors, data = _receive(sock)
            reached("new has received")
            if len(descriptors) != given["count"]:
                raise LimitReached(f"{len(descriptors)} of {given['count']} descriptors have come; raise the limit")
            daemon, restoring = Daemon.restore(data, descriptors, settings, arguments=arguments)
            askers = [restoring.channels[number] for number in given["askers"]]
            prepare(daemon)
        except Interrupted:
            raise
        except Exception as error:
            _log.debug("a snapshot could not be restored", exc_info=True)
            with contextlib.suppress(OSError):
                _say_no(sock, str(error) or type(error).__name__)
            raise Interrupted from error
        finally:
            gc.enable()
        reached("new has restored")
        _wait_for_go(sock)
        reached("new is told go")
        with contextlib.suppress(OSError):
            say(sock, "taken")
        reached("new takes")
    with contextlib.suppress(OSError):
        name(daemon.place.lock)
    stall = (time.monotonic_ns() - given["began"]) // 1000
    _log.warning(
        "this daemon has taken the place of process %d, whose program was %s; nobody was served for %.1f ms",
        given["pid"],
        given["version"],
        stall / 1000,
        extra=event("upgraded", pid=given["pid"], version=given["version"], stall_us=stall),
    )
    answer = t.UPGRADE.pack_answer(
        (given["pid"], os.getpid(), min(stall, 0xFFFFFFFF)), t.pack_texts(given["version"], RELEASE)
    )
    for channel in askers:
        channel.outbox.append(Answer(answer))
    daemon.begin()
    return daemon


def _receive(sock: socket.socket) -> tuple[dict[str, Any], list[int], memoryview]:
    """All that the other daemon hands over: what it says with it, descriptors, and the snapshot."""
    descriptors: list[int] = []
    while True:
        said, came = _hear(sock)
        if said["says"] == "descriptors":
            descriptors += came
        elif said["says"] == "snapshot":
            if not came:
                raise LimitReached("not even the state's own descriptors have come; raise the limit")
            data = mmap.mmap(came[0], said["size"], prot=mmap.PROT_READ)
            os.close(came[0])
            return said, descriptors, memoryview(data)
        else:
            raise Interrupted


def _wait_for_go(sock: socket.socket) -> None:
    """Return when the other daemon says so, or is dead."""
    with contextlib.suppress(OSError):
        say(sock, "ready")
    reached("new is ready")
    said, _ = _hear(sock)
    # It has no other way to say no than to kill this process.
    assert said["says"] in ("go", "")


def _hear(sock: socket.socket) -> tuple[dict[str, Any], list[int]]:
    try:
        return hear(sock)
    except ConnectionError:
        return {"says": ""}, []
