"""The state of a kernel or a daemon that comes back changed: it is restored in order, or refused."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any, Final

import msgspec

from chaos.fuzzing.feeding import Feeder
from chaos.fuzzing.kernel import _trap_seeds, _Traps
from machport.abi.errors import ProtocolError
from machport.kernel.snapshot import SnapshotError, restore, save
from machport.server import snapshot
from machport.server.dispatch import OpenFile

Call = tuple[Callable[[bytes], None], list[bytes]]
#: Kernels that are begun with, and inputs for traps that made each.
_BASES: Final = 6
_MADE_BY: Final = 60
_HEAD: Final = snapshot.MAGIC + snapshot.VERSION.to_bytes(4, "little")
_VALUES: Final[tuple[Any, ...]] = (
    *(0, 1, 2, -1, -2, 3, 16, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 32, (1 << 63) - 1, (1 << 64) - 1, -(1 << 63)),
    *(None, True, False, "", "text", b"", b"\0" * 24, [], [[]], [0, 0], {}, 0.5),
)


def new_snapshots() -> Call:
    """Edits of a snapshot: of its bytes, or of the lists that they say; or bytes that are none."""
    snapshots = _Snapshots()
    seeds = [bytes((kind, base)) for kind in range(3) for base in range(_BASES)]
    seeds += [bytes((0, base, 4, 200, 90, 7)) for base in range(_BASES)]
    seeds += [bytes((1, base, 9, 17, 33, 65, 5, 0, 1)) for base in range(_BASES)]
    seeds += [bytes((2, 0)) + _HEAD + rest for rest in (b"\x93\x80\x90\x90", b"\x91" * 500)]
    return snapshots.call, seeds


class _Snapshots:
    """Some kernels as bytes, each with whatever can be in one."""

    def __init__(self) -> None:
        self._bases = []
        for number in range(_BASES):
            traps = _Traps()
            feeder = Feeder(_trap_seeds(), number)
            for _ in range(_MADE_BY * number):
                traps.call(feeder.next())
            machine = traps.machine
            waiters = [call.waiter for call in machine.waiting() if call.waiter is not None]
            saved = save(machine.kernel, waiters, [], lambda _: 0)
            self._bases.append(msgspec.msgpack.encode(saved.state))

    def call(self, data: bytes) -> None:
        kind, base, *edits = data if len(data) > 1 else b"\0\0"
        whole = self._bases[base % _BASES]
        if kind % 3 == 0:
            changed = bytearray(whole)
            for at in range(0, len(edits) - 2, 3):
                changed[int.from_bytes(edits[at : at + 2], "little") % len(changed)] = edits[at + 2]
            self._unpack(_HEAD + b"\x93\x80" + changed + b"\x91\x92\0\0")
        elif kind % 3 == 1:
            state = msgspec.msgpack.decode(whole)
            at = 0
            while at < len(edits):
                at = _edit(state, edits, at)
            self._restore(state)
        else:
            self._unpack(bytes(edits))

    def _restore(self, state: Any) -> None:
        try:
            restored = restore(state, lambda _: OpenFile(-1, None))
        except SnapshotError:
            return
        save(restored.kernel, restored.waiters, restored.results, lambda _: 0, restored.tasks)

    def _unpack(self, data: bytes | bytearray) -> None:
        try:
            snapshot.unpack(bytes(data), range(4))
        except ProtocolError:
            return


def _edit(state: Any, edits: list[int], at: int) -> int:
    """Change one place of a state; where the next edit begins."""
    place, index = state, 0
    while True:
        if not isinstance(place, list) or not place:
            return at + 1
        byte = edits[at] if at < len(edits) else 0
        at += 1
        index = byte % len(place)
        if not isinstance(place[index], list) or byte >= 240:
            break
        place = place[index]
    how = edits[at] if at < len(edits) else 0
    if how < 160:
        # A copy, which later edits may change.
        place[index] = deepcopy(_VALUES[how % len(_VALUES)])
    elif how < 190:
        place[index] = place[how % len(place)]
    elif how < 210:
        del place[index]
    elif how < 230:
        place.insert(index, place[how % len(place)])
    elif isinstance(place[index], int):
        place[index] += how - 242
    return at + 1
