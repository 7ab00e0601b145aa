"""The memory of a data queue: a sealed memfd with a ring in it, and its mapping in this process.

For this room, and for whoever sends a queue to another task: :meth:`DataQueueMemory.fileno` is what travels.
Knows descriptors and mappings; never knows tasks, rights or waiting.  Source: spec/dataqueue.md, sections 1
and 5.

The memory is allocated before it is used, so that a shortage is an error here and not a SIGBUS later; and it
is sealed against shrinking, so that no peer can take pages away from under a mapping.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
import warnings
from contextlib import ExitStack
from typing import Final, Self

from machport.abi import constants as c
from machport.abi.errors import LimitReached, QueueMisuse
from machport.dataqueue import extension, notification
from machport.ring import Ring, layout, map_shared

#: No peer can change the size, or unseal: what was checked once stays true.
SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL

_SEAL_NAMES: Final = {
    fcntl.F_SEAL_SEAL: "F_SEAL_SEAL",
    fcntl.F_SEAL_SHRINK: "F_SEAL_SHRINK",
    fcntl.F_SEAL_GROW: "F_SEAL_GROW",
    fcntl.F_SEAL_WRITE: "F_SEAL_WRITE",
}
_U32: Final = struct.Struct("=I")
_U32_MAX: Final = 0xFFFFFFFF
_BLOCK: Final = 512  # unit of st_blocks
_VERSION_SIZE: Final = 4


def region_size(capacity: int, *, shared: bool) -> int:
    """Bytes of memory for a ring of ``capacity`` bytes, not rounded to pages.

    Raises:
        QueueMisuse: the capacity is negative, or the size would not fit into 32 bits.
    """
    rest = layout.MEMORY_HEADER_SIZE + (layout.MEMORY_APPENDIX_SIZE if shared else 0)
    if not 0 <= capacity <= _U32_MAX - rest:
        raise QueueMisuse(f"the capacity must be 0 to {_U32_MAX - rest} bytes, not {capacity}")
    return rest + capacity


def capacity_for(entries: int, size: int) -> int:
    """Bytes of ring that always have room for ``entries`` entries of up to ``size`` bytes each (Q37).

    Raises:
        QueueMisuse: a number is negative or the result would not fit into 32 bits.
    """
    if entries < 0 or size < 0:
        raise QueueMisuse(f"{entries} entries of {size} bytes do not make a queue: both must be 0 or more")
    capacity = (entries + 1) * (size + layout.ENTRY_HEADER_SIZE)
    terms = (entries + 1, size + layout.ENTRY_HEADER_SIZE, capacity)
    if max(terms) > _U32_MAX:
        raise QueueMisuse(
            f"{entries} entries of {size} bytes do not make a queue: ({entries} + 1) x ({size} + 4)"
            " and both its factors must fit into 32 bits"
        )
    return capacity


class DataQueueMemory:
    """The memory of one data queue, mapped.  Owns the descriptor and the mapping; close it, best by ``with``.

    Attributes:
        capacity: bytes of the ring as created or checked here; the shared field is not read again (Q36).
        size: bytes of the region, without rounding to pages.
        shared: whether there is an appendix, which holds the notification's header.
        extended: whether there is room behind it for what machport's own sides tell each other (``extension``).
    """

    def __init__(self, fd: int, mapping: mmap.mmap, capacity: int, *, one_process: bool = False) -> None:
        """Not for callers: use :meth:`with_capacity`, :meth:`with_entries` or :meth:`from_fd`."""
        self._fd = -1  # so that a refusal by the ring leaves the descriptor with the caller
        self._mapping = mapping
        self._ring: Ring | None = Ring(mapping, capacity, one_process=one_process)
        self.capacity = capacity
        self.size = len(mapping)
        self.shared = self.size >= self._appendix + layout.MEMORY_APPENDIX_SIZE
        self.extended = extension.is_in(mapping, capacity)
        self._fd = fd

    @classmethod
    def with_capacity(
        cls, capacity: int, *, shared: bool = True, extended: bool = False, one_process: bool = False
    ) -> Self:
        """Create memory for a ring of ``capacity`` bytes, zeroed and empty.

        Args:
            capacity: bytes; an entry takes 4 more than its data, and the largest has ``capacity - 4`` (Q7).
            shared: append room for a notification's header.
            extended: and behind that, where the published layout does not look, room for machport's own sides.
            one_process: nobody else will map it; only the interpreted ring needs to know.

        Raises:
            QueueMisuse: the sizes do not fit into 32 bits.
            LimitReached: there is no memory or no descriptor for it now.
        """
        size = region_size(capacity, shared=shared or extended)
        if extended:
            size = extension.place(capacity) + extension.SIZE
        try:
            with ExitStack() as undo:
                fd = os.memfd_create("machport-dataqueue", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
                undo.callback(os.close, fd)
                os.posix_fallocate(fd, 0, size)
                os.pwrite(fd, _U32.pack(capacity), layout.QUEUE_SIZE)
                if extended:
                    os.pwrite(fd, extension.MAGIC, extension.place(capacity))
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
                memory = cls(fd, map_shared(fd, size), capacity, one_process=one_process)
                undo.pop_all()
                return memory
        except OSError as error:
            raise _shortage(size, error) from error

    @classmethod
    def with_entries(cls, entries: int, size: int, *, shared: bool = True, one_process: bool = False) -> Self:
        """Create memory that always has room for ``entries`` entries of up to ``size`` bytes each (Q37).

        Raises what :meth:`with_capacity` raises.
        """
        return cls.with_capacity(capacity_for(entries, size), shared=shared, one_process=one_process)

    @classmethod
    def from_fd(cls, fd: int) -> Self:
        """Map memory that another process handed over, after checking that it cannot harm this one.

        On success the object owns ``fd``; after a refusal the caller still does.

        Raises:
            QueueMisuse: it is not a fully allocated, sealed memfd that holds a data queue.
            LimitReached: it cannot be mapped now.
        """
        size = _checked_size(fd)
        try:
            mapping = map_shared(fd, size)
        except PermissionError as error:
            raise QueueMisuse(
                f"descriptor {fd} cannot be mapped for writing; both sides of a data queue write to it"
            ) from error
        except OSError as error:
            raise _shortage(size, error) from error
        capacity: int = _U32.unpack_from(mapping, layout.QUEUE_SIZE)[0]
        if layout.MEMORY_HEADER_SIZE + capacity > size:
            mapping.close()
            raise QueueMisuse(
                f"descriptor {fd} is no data queue: by its own account the ring has {capacity} bytes,"
                f" which needs a region of {layout.MEMORY_HEADER_SIZE + capacity}; it has {size}",
                rule="Q36",
            )
        return cls(fd, mapping, capacity)

    @property
    def ring(self) -> Ring:
        """The ring in this memory.  Whoever keeps it, or a view that it gave, keeps the memory mapped.

        Raises:
            QueueMisuse: closed.
        """
        if self._ring is None:
            raise QueueMisuse("this data queue's memory has been closed here")
        return self._ring

    @property
    def mapping(self) -> mmap.mmap:
        """The mapping.  Whoever keeps a view of it keeps the memory mapped.

        Raises:
            QueueMisuse: closed.
        """
        self._check_open()
        return self._mapping

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` has been called."""
        return self._ring is None

    def fileno(self) -> int:
        """The descriptor, to be sent or inherited; it stays this object's.  -1 after :meth:`close`."""
        return self._fd

    @property
    def notification_header(self) -> bytes | None:
        """A copy of the header in the appendix, as a peer may have written it; None without an appendix.

        Raises:
            QueueMisuse: closed.
        """
        self._check_open()
        if not self.shared:
            return None
        start = self._appendix + _VERSION_SIZE
        return self._mapping[start : start + notification.HEADER.size]

    def set_notification_port(self, port: int) -> None:
        """Write the header that notifies ``port``, a name in the task that enqueues; 0 for none (Q16, Q17).

        Raises:
            QueueMisuse: closed, or the region has no room for an appendix (Q18), or ``port`` is not a name.
        """
        self._check_open()
        if not self.shared:
            raise QueueMisuse(
                f"a plain queue has no room for a notification port: its region has {self.size} bytes"
                f" and would need {self._appendix + layout.MEMORY_APPENDIX_SIZE}; create it with shared=True",
                rule="Q18",
            )
        if not 0 <= port <= _U32_MAX:
            raise QueueMisuse(f"a port name has 32 bits; {port} has more")
        bits, size, remote, local, _, ident = notification.HEADER.unpack(notification.header_for(port))
        start = self._appendix + _VERSION_SIZE
        # The port comes last: a producer that reads meanwhile finds it still 0, or the header complete.
        for offset, value in ((0, bits), (4, size), (12, local), (20, ident), (8, remote)):
            _U32.pack_into(self._mapping, start + offset, value)

    def close(self) -> None:
        """Close the descriptor, and the mapping as soon as nobody holds the ring or a view any more."""
        if self._ring is None:
            return
        self._ring = None
        os.close(self._fd)
        self._fd = -1
        try:
            self._mapping.close()
        except BufferError:
            # Somebody still looks into it.  If we let go, the last view takes the mapping along.
            del self._mapping

    @property
    def _appendix(self) -> int:
        return layout.MEMORY_HEADER_SIZE + self.capacity

    def _check_open(self) -> None:
        if self._ring is None:
            raise QueueMisuse("this data queue's memory has been closed here")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=1, source=self)
            self.close()

    def __repr__(self) -> str:
        kind = "shared" if self.shared else "plain"
        state = "closed" if self.closed else f"descriptor {self._fd}"
        return f"<{type(self).__name__} of {self.capacity} bytes, {kind}, {state}>"


def _checked_size(fd: int) -> int:
    """The size of the memfd behind ``fd``, which nobody can change any more."""
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError as error:
        raise QueueMisuse(
            f"descriptor {fd} is no memory that can be sealed ({error.strerror}); expected a memfd with {_names(SEALS)}"
        ) from error
    if SEALS & ~seals:
        raise QueueMisuse(
            f"descriptor {fd} has the seals {_names(seals)}; expected {_names(SEALS)},"
            " without which its owner could shrink it under this process"
        )
    # After the seals: only now does the answer stay true.
    status = os.fstat(fd)
    largest = -(-(_U32_MAX + extension.SIZE) // mmap.PAGESIZE) * mmap.PAGESIZE
    if not layout.MEMORY_HEADER_SIZE <= status.st_size <= largest:
        raise QueueMisuse(
            f"descriptor {fd} has {status.st_size} bytes; a data queue has {layout.MEMORY_HEADER_SIZE} to {largest}"
        )
    if status.st_blocks * _BLOCK < status.st_size:
        raise QueueMisuse(
            f"descriptor {fd} has {status.st_size} bytes, of which {status.st_blocks * _BLOCK} are allocated;"
            " expected all, because the rest would be charged to whoever touches it first"
        )
    return status.st_size


def _names(seals: int) -> str:
    return " | ".join(name for bit, name in _SEAL_NAMES.items() if seals & bit) or "none"


def _shortage(size: int, error: OSError) -> LimitReached:
    if error.errno in (errno.EMFILE, errno.ENFILE):
        lacking, code = "descriptor", c.kIOReturnNoResources
    else:
        lacking, code = "memory", c.kIOReturnNoMemory
    return LimitReached(f"no {lacking} for a data queue of {size} bytes: {error.strerror}", code=code)
