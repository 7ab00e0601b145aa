"""Whether a process is dead before its pidfd tells: *if none of its threads can return to its program*.

It will send nothing more then, though it may take long to take down its memory.  To be asked when there is a sign of
its death, such as a slack lifeline.

Why no living process is taken for dead.  A thread that is exiting, by its flags, or has no address space any more,
which shows as a program (``exe``) that is not there, neither runs its program again nor starts a thread.  If the first
thread is exiting and the threads are then counted and are one, that is all.  Otherwise they are listed, each is seen
to have no memory, they are counted, and listed again.  If both lists are the same, all in it were there when they were
counted; and if the count is their number, nobody else was.
"""

from __future__ import annotations

import os
from typing import Final

from machport.ring import lifeline

#: More than there is in the fdinfo of a pidfd.
_INFO_SIZE: Final = 1024


def can_be_seen(process: int) -> bool:
    """Whether a look at a process will show anything: procfs may hide it.

    What was looked at once, the system finds in half the time when it counts.
    """
    try:
        os.stat(f"/proc/{process}/stat")
        os.readlink(f"/proc/{process}/exe")
    except FileNotFoundError as error:
        # What is there and has no program is dying already.
        return str(error.filename).endswith("exe")
    except OSError:
        return False
    return True


def is_dead(process: int) -> bool:
    """Whether no thread of a process can return to its program.

    False also where that cannot be seen: the process is gone altogether, or hidden.
    """
    directory = f"/proc/{process}/task"
    try:
        count = lifeline.threads_left(process)
        if count <= 1:
            return count == 1
        threads = os.listdir(directory)
        if any(_has_memory(f"{directory}/{thread}/exe") for thread in threads):
            return False
        return lifeline.threads_left(process) == len(threads) and threads == os.listdir(directory)
    except OSError:
        return False


def _has_memory(exe: str) -> bool:
    try:
        os.readlink(exe)
    except FileNotFoundError:
        return False
    except OSError:
        # Not ours to see.
        return True
    return True


def number_in_proc(pidfd: int) -> int:
    """The number of a process in the process namespace of /proc; 0 or less if it has none there, or is gone.

    Raises:
        ValueError: the descriptor is no pidfd.
        OSError: it cannot be seen.
    """
    info = os.open(f"/proc/self/fdinfo/{pidfd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fields = os.read(info, _INFO_SIZE).split()
    finally:
        os.close(info)
    return int(fields[fields.index(b"Pid:") + 1])
