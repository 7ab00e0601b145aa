"""What the processes of the demonstration say to each other.

A request is a message with a serial number; its bytes follow in entries of the data queue, each headed by that number.
Serials only ascend, messages and entries keep their order, and the message is sent first.  So an entry whose serial is
below that of a message received since belongs to a request that an earlier server took along: it is stale.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass, field
from typing import Any, Final

#: Bytes of a file in one entry of the data queue.
CHUNK: Final = 64 * 1024
#: Room for some tens of entries: a full queue, and waiting for room, belong to the demonstration.
CAPACITY: Final = 2 * 1024 * 1024
#: Requests under way at once, fewer than the service port's queue holds.
WINDOW: Final = 8
QLIMIT: Final = 16

ENTRY: Final = struct.Struct("<QI")
MORE, LAST, ABANDONED = range(3)

REQUEST_ID: Final = 1000
REQUEST: Final = struct.Struct("<Q")
#: Generation of the server, whether the file was abandoned, stale entries it has passed over, the SHA-256.
REPLY: Final = struct.Struct("<IIQ32s")

PROGRESS_ID: Final = 2000
#: Files answered, bytes answered, requests that came back, generation of the server that answered last.
PROGRESS: Final = struct.Struct("<QQQI")
SUMMARY_ID: Final = 2001
SERVER_ENDS_ID: Final = 2002
#: Generation, and the count in its no-senders notification.
SERVER_ENDS: Final = struct.Struct("<II")


@dataclass
class FileResult:
    """One file: what was answered, how often it was asked and answered, or why it could not be read."""

    path: str
    size: int = 0
    digest: str = ""
    attempts: int = 0
    answers: int = 0
    error: str = ""


@dataclass
class Summary:
    """All that the client has to tell in the end."""

    files: list[FileResult] = field(default_factory=list)
    seconds: float = 0.0
    came_back: int = 0
    stale_entries: int = 0
    entries: int = 0
    waits_for_room: int = 0
    notifications: dict[str, int] = field(default_factory=dict)

    def pack(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def unpack(cls, data: bytes) -> Summary:
        content: dict[str, Any] = json.loads(data)
        files = [FileResult(**item) for item in content.pop("files")]
        return cls(files=files, **content)
