"""What is read from files: what a program inherits, transcripts, and the daemon's settings."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

from machport.abi.errors import InvalidArgument, ProtocolError
from machport.abi.limits import LIMIT_MAX
from machport.client import inheritance
from machport.client.inheritance import Inheritance, InheritedRight
from machport.kernel.dialect import GNUMACH
from machport.replay import player, transcript
from machport.replay.transcript import TranscriptError
from machport.server import configuration

Call = tuple[Callable[[bytes], None], list[bytes]]


class _File:
    """A file in memory whose content is each input in turn."""

    def __init__(self, name: str) -> None:
        self.descriptor = os.memfd_create(name)
        self.path = Path(f"/proc/self/fd/{self.descriptor}")

    def write(self, data: bytes) -> None:
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, data, 0)


def new_inheritance() -> Call:
    """What a parent left its child."""
    file = _File("machport-inheritance")
    left = Inheritance(Path("/run/x"), bytes(16), "child", {"inbox": InheritedRight(0x103, 17, False)})
    descriptor, _ = inheritance.leave(left)
    whole = os.pread(descriptor, 1 << 16, 0)
    os.close(descriptor)

    def call(data: bytes) -> None:
        file.write(data)
        copy = os.dup(file.descriptor)
        os.environ[inheritance.VARIABLE] = f"{copy}:{os.fstat(copy).st_ino}"
        try:
            found = inheritance.take()
        except ProtocolError:
            pass
        else:
            assert found is not None
            assert len(found.ticket) in (0, 16)
        assert inheritance.VARIABLE not in os.environ

    return call, [whole, b"[]", b'["/run", "", "label", {}]']


def new_transcripts() -> Call:
    """A file that ``machport replay`` is to play, of a real kernel or of a world."""
    text = (
        b"scenario one\n# text\n> t0 allocate RECEIVE\n= KERN_SUCCESS name=a1\n"
        b"> t0 insert_right a1 MAKE_SEND(a1)\n= KERN_SUCCESS\n"
        b"> t0 send remote=COPY_SEND(a1) local=null id=1001 ports=[MAKE_SEND(a1)]\n= MACH_MSG_SUCCESS\n"
        b"> t0 request_notification a1 NO_SENDERS sync=1 notify=MAKE_SEND_ONCE(a1)\n= KERN_SUCCESS previous=null\n"
        b"> t0 receive a1 large\n= MACH_MSG_SUCCESS\n> t1 mod_refs b1 SEND -1\n= KERN_INVALID_NAME\n"
        b"> t0 dump\n= KERN_SUCCESS count=0\n| a1 type=SEND\nend\n"
    )
    file = _File("transcript")

    def call(data: bytes) -> None:
        file.write(data)
        try:
            for scenario in transcript.read(file.path):
                if not scenario.is_world:
                    player.play(scenario, GNUMACH)
        except TranscriptError:
            pass

    return call, [text, gzip.compress(text, mtime=0), b"scenario a\nend\nscenario b\n> t0 names\n= X\nend\n"]


def new_settings() -> Call:
    """The daemon's file of settings."""
    file = _File("settings")

    def call(data: bytes) -> None:
        file.write(data)
        try:
            settings = configuration.read(file.path)
        except InvalidArgument:
            return
        for limits in (settings.task, settings.limits_of("render-7"), settings.daemon):
            assert all(type(number) is int and 0 <= number <= LIMIT_MAX for number in limits)
        daemon = settings.daemon
        assert min(daemon.connections_per_second, daemon.silent, daemon.silent_per_process, daemon.hello_seconds) > 0

    return call, [
        b"[task]\nnames = 1000\n[tasks.'render*']\nbytes = 1\n[daemon]\nconnections = 5\nsilent = 1\n",
        b"[tasks]\n'[a' = {}\n",
        b"[daemon]\nhello_seconds = 0\n",
        b"task = 5",
    ]
