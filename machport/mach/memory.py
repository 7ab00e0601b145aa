"""Addresses: what out-of-line descriptors point to in a program that speaks the manual's layout.

Memory that a message brought, or that ``vm_allocate`` made, is mapped and belongs to the task until it is given up.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import threading
from typing import TYPE_CHECKING, Final

from machport.abi import constants as c
from machport.abi.errors import InvalidArgument

if TYPE_CHECKING:
    import ctypes

_regions: Final[dict[int, tuple[mmap.mmap, ctypes.Array[ctypes.c_char]]]] = {}
_lock: Final = threading.Lock()


@functools.cache
def _libc() -> ctypes.CDLL:
    # Imported only where there is an address: programs that have none need not wait for it.
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def vm_allocate(size: int) -> int:
    """New zeroed memory of whole pages; its address."""
    if size <= 0:
        raise InvalidArgument(f"{size} bytes cannot be allocated", code=c.KERN_INVALID_ARGUMENT, call="vm_allocate")
    import ctypes

    mapping = mmap.mmap(-1, _pages(size))
    view = (ctypes.c_char * len(mapping)).from_buffer(mapping)
    address = ctypes.addressof(view)
    with _lock:
        _regions[address] = (mapping, view)
    return address


def vm_deallocate(address: int, size: int) -> None:
    """Give up memory of ``vm_allocate`` or of a received message: all the pages of one region.

    Raises:
        InvalidArgument: KERN_INVALID_ADDRESS, it is not such a region.
    """
    if size == 0:
        return
    with _lock:
        region = _regions.get(address)
        if region is None or len(region[0]) != _pages(size):
            raise InvalidArgument(
                f"{size} bytes at {address:#x} are not a region of this task",
                code=c.KERN_INVALID_ADDRESS,
                call="vm_deallocate",
            )
        del _regions[address]
    mapping, view = region
    del region, view
    # A traceback may still hold a view; then the last one that goes takes the memory along.
    with contextlib.suppress(BufferError):
        mapping.close()


def is_region(address: int, size: int) -> bool:
    """Whether these are all the pages of one region that ``vm_deallocate`` would take."""
    with _lock:
        region = _regions.get(address)
        return size == 0 or (region is not None and len(region[0]) == _pages(size))


def vm_read(address: int, size: int) -> bytes:
    """The bytes at an address of this process.

    Raises:
        InvalidArgument: KERN_INVALID_ADDRESS, they cannot be read; the process is not harmed.
    """
    if size == 0:
        return b""
    import ctypes

    buffer = ctypes.create_string_buffer(size)
    vector = ctypes.c_size_t * 2
    local, remote = vector(ctypes.addressof(buffer), size), vector(address, size)
    # The system call checks what a plain copy would trip over.
    copied = _libc().process_vm_readv(os.getpid(), ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
    if copied != size:
        raise InvalidArgument(
            f"{size} bytes at {address:#x} cannot be read", code=c.KERN_INVALID_ADDRESS, call="vm_read"
        )
    return buffer.raw


def vm_write(address: int, data: bytes) -> None:
    """Write into a region of ``vm_allocate`` or of a received message, from its start."""
    with _lock:
        region = _regions.get(address)
    if region is None or len(data) > len(region[0]):
        raise InvalidArgument(
            f"{len(data)} bytes do not fit a region at {address:#x}", code=c.KERN_INVALID_ADDRESS, call="vm_write"
        )
    region[0][: len(data)] = data


def place(data: bytes) -> int:
    """Received memory in a region of its own; its address, 0 for none."""
    if not data:
        return 0
    address = vm_allocate(len(data))
    vm_write(address, data)
    return address


def _pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
