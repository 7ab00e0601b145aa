"""A kernel as plain data, and that data as a kernel again: lists, numbers, text, bytes, True, False and None.

For whoever carries a kernel into another process, or goes back to where one was.  Not for any hot path; still a million
ports take seconds.  Knows the fields of every class that is state.  Never knows bytes: what encodes the data, and says
of which version it is, is somebody else's.

Every class has its *row*: a list of its fields, written by a function of ``saving`` and read by the function of the
same name in ``restoring``; ``rows.FIELDS`` says of each field where it is.  Ports, tasks, waiters and results are
numbered, and whatever refers to one has its number.  What is in one place only stands in the row of that place: a
message in its queue, or with the waiter that sends it.  What follows from the rest is not saved, but made anew by the
kernel's own means: where a receive right is, which line a waiter stands in, how many messages a queue has.

Nothing is believed when it comes back.  A row of the wrong form, a number out of range, or links that contradict each
other are a ``SnapshotError``.  Nothing here has depth.
"""

from __future__ import annotations

from machport.kernel.restoring import Restored, restore
from machport.kernel.rows import SnapshotError
from machport.kernel.saving import Saved, save

__all__ = ["Restored", "Saved", "SnapshotError", "restore", "save"]
