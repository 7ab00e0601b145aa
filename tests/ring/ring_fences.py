"""Every operation of the compiled ring and the doorbell in memory that begins or ends at a page nobody may touch.

``python ring_fences.py`` does them all in a child, and says in which one it died if it did.  What stands in the
memory is every combination of fields and sizes near an edge; what the caller gives ends at such a page, too.
"""

from __future__ import annotations

import itertools
import mmap
import struct
import sys
from collections.abc import Callable, Iterator

from ring_scenes import Child, guarded

from machport.ring import Doorbell, Ring, layout

PAGE = mmap.PAGESIZE
U32 = struct.Struct("=I")
U32_MAX = 2**32 - 1
STEP = struct.Struct("=16s6q")
CANARY = b"\xca"


def fenced_page() -> memoryview:
    """One page between two that nobody may touch."""
    return guarded(PAGE - layout.MEMORY_HEADER_SIZE)[0]


GIVEN = fenced_page()
ROOM = fenced_page()


def given(size: int) -> memoryview:
    """Bytes of the caller's that end at a fence."""
    return GIVEN[len(GIVEN) - min(size, PAGE) :]


def room(size: int) -> memoryview:
    """Room of the caller's that ends at a fence."""
    return ROOM[len(ROOM) - min(max(size, 0), PAGE) :]


def reserve(ring: Ring, size: int) -> None:
    place = ring.reserve(size)
    if place is not None:
        place[:] = bytes(size)


def commit(ring: Ring, size: int) -> None:
    if ring.reserve(size) is not None:
        ring.commit()


def peek(ring: Ring, size: int) -> None:
    entry = ring.peek()
    assert entry is None or len(bytes(entry)) <= ring.capacity


def lend(ring: Ring, size: int) -> None:
    entry = ring.lend()
    assert entry is None or len(bytes(entry)) <= ring.capacity


def put_back(ring: Ring, size: int) -> None:
    entry = ring.lend()
    if entry is not None:
        ring.put_back()
        assert len(bytes(entry)) <= ring.capacity


Operations = dict[str, Callable[[Ring, int], object]]
#: What the producer does with an entry of some size; named as the methods are.
PRODUCE: Operations = {
    "enqueue": lambda ring, size: ring.enqueue(given(size)),
    "enqueue_parts": lambda ring, size: ring.enqueue_parts([given(size // 2), b"", given(size - size // 2)]),
    "enqueue_blank": lambda ring, size: ring.enqueue_blank(size),
    "enqueue_many": lambda ring, size: ring.enqueue_many([given(0), given(size), given(1)]),
    "fits": lambda ring, size: ring.fits(size),
    "look_for_room": lambda ring, size: ring.look_for_room(size, 0),
    "reserve": reserve,
    "commit": commit,
}
#: What looks for entries; the producer's count of the unread is one of them.
CONSUME: Operations = {
    "data_available": lambda ring, size: ring.data_available(),
    "look": lambda ring, size: ring.look(0),
    "next_size": lambda ring, size: ring.next_size(),
    "unread": lambda ring, size: ring.unread(),
    "peek": peek,
    "lend": lend,
    "put_back": put_back,
    "forget_loans": lambda ring, size: ring.forget_loans(),
    "dequeue": lambda ring, size: ring.dequeue(),
    "dequeue_into": lambda ring, size: (ring.dequeue_into(room(ring.next_size() - 1)), ring.dequeue_into(room(size))),
    "skip": lambda ring, size: ring.skip(),
    "dequeue_many": lambda ring, size: ring.dequeue_many(),
}


def edges(capacity: int) -> list[int]:
    """Offsets and sizes at which something ends."""
    near = {base + more for base in (0, 4, capacity - 4, capacity) for more in (-1, 0, 1)}
    return sorted(edge for edge in {*near, U32_MAX - 3, U32_MAX} if edge >= 0)


def regions() -> Iterator[tuple[int, int, bool]]:
    """Where in a page a region begins, at either fence or at both; the capacity of its ring; and the layout."""
    for spread, header in ((False, layout.MEMORY_HEADER_SIZE), (True, layout.SPREAD_RING)):
        for capacity in (0, 4, 8, 20, PAGE - header):  # a region must begin at a multiple of four
            yield PAGE - header - capacity, capacity, spread
        for capacity in (0, 1, 3, 5, 18):
            yield 0, capacity, spread


def states(capacity: int, operations: Operations) -> Iterator[tuple[int, int, int, str, int]]:
    """Head, tail, the size that stands wherever one may be looked for, the operation, and the caller's own size."""
    every = edges(capacity)
    # A producer looks at no size, and a consumer gives none but that of its room, which is the entry's.
    sizes = every if operations is CONSUME else [0]
    for head, tail, size, name in itertools.product(every, every, sizes, operations):
        for own in [size] if operations is CONSUME else every:
            yield head, tail, size, name, own


def try_the_ring(note: Callable[..., None]) -> None:
    for begin, capacity, spread in regions():
        header = layout.SPREAD_RING if spread else layout.MEMORY_HEADER_SIZE
        page = fenced_page()
        page[:] = CANARY * PAGE
        region = page[begin : begin + header + capacity]
        region[:] = bytes(len(region))
        ring = Ring(region, capacity, spread=spread)
        head_at, tail_at = (0, layout.SPREAD_TAIL) if spread else (layout.HEAD, layout.TAIL)
        for operations in (PRODUCE, CONSUME):
            for head, tail, size, name, own in states(capacity, operations):
                note(name, spread, capacity, head, tail, size, own)
                for at in (0, head, capacity - 4):
                    if 0 <= at <= capacity - 4:
                        U32.pack_into(region, header + at, size)
                U32.pack_into(region, head_at, head)
                U32.pack_into(region, tail_at, tail)
                operations[name](ring, own)
        beside = bytes(page[:begin]) + bytes(page[begin + len(region) :])
        assert not beside.strip(CANARY), "bytes beside the region were written"


def try_the_bell(note: Callable[..., None]) -> None:
    page = fenced_page()
    for offset in (0, PAGE - 4):
        bell = Doorbell(page, offset)
        for name, value in itertools.product(("arm", "ring", "disarm"), (0, 1, 2, U32_MAX)):
            note(name, 0, offset, value, 0, 0, 0)
            U32.pack_into(page, offset, value)
            getattr(bell, name)()


def try_everything() -> str:
    """Do it all in a child; how that ended, with its last step if it did not end well."""
    notebook = mmap.mmap(-1, PAGE)

    def note(name: str, *numbers: int) -> None:
        STEP.pack_into(notebook, 0, name.encode(), *numbers)

    def work() -> None:
        try_the_ring(note)
        try_the_bell(note)

    with Child(work) as child:
        status = child.wait()
    name, *numbers = STEP.unpack_from(notebook)
    what = dict(zip(("spread", "capacity", "head", "tail", "size", "own"), numbers, strict=True))
    return f"wait status {status} in {name.rstrip(bytes(1)).decode()} with {what}" if status else "done"


if __name__ == "__main__":
    print(outcome := try_everything())
    sys.exit(outcome != "done")
