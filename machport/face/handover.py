"""Rights on their way into the task of a process that is being started."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from machport.abi import constants as c
from machport.abi.errors import InvalidArgument, InvalidRight, MachError
from machport.client.inheritance import InheritedRight
from machport.face.pickling import Remade
from machport.face.rights import Right, Transfer, received_right

if TYPE_CHECKING:
    from machport.face.task import AnyTask

#: Names for rights in a child's empty space: index from here, generation 3.
_FIRST_INDEX = 0x1000
#: What arrives of a right that leaves by each disposition.
_KINDS = {
    c.MACH_MSG_TYPE_MOVE_RECEIVE: c.MACH_MSG_TYPE_PORT_RECEIVE,
    c.MACH_MSG_TYPE_MOVE_SEND: c.MACH_MSG_TYPE_PORT_SEND,
    c.MACH_MSG_TYPE_COPY_SEND: c.MACH_MSG_TYPE_PORT_SEND,
    c.MACH_MSG_TYPE_MOVE_SEND_ONCE: c.MACH_MSG_TYPE_PORT_SEND_ONCE,
}


class Handover:
    """Puts rights into a child's task, and takes them back if the child does not start.

    Args:
        form: how rights wait that arrive among arguments; None for as an ordinary task's do.
    """

    def __init__(self, task: AnyTask, child: int, form: type[AnyTask] | None = None) -> None:
        self._form = form
        self._task = task
        self._child = child
        self._names: dict[int, int] = {}
        self._made = 0
        self._carried: list[tuple[Transfer, int]] = []

    def put(self, transfer: Transfer) -> InheritedRight:
        """Put a right into the child's space; what it is there.

        A right that died meanwhile arrives as one that died a moment after, as it would in a message.

        Raises:
            InvalidArgument: it is of another task, or was moved into this child before.
        """
        transfer.prepare(self._task)
        name = transfer.right.name_in(self._task)
        if any(before.right is transfer.right and before.moves for before, _ in self._carried):
            raise InvalidArgument(f"{transfer.right!r} is moved twice into one child")
        # Rights of one port come together under one name there, as they are here; send-once rights never do.
        child_name = self._names.get(name) or self._new_name()
        try:
            self._task.calls.mach_port_insert_right(self._child, child_name, name, transfer.disposition)
        except InvalidRight as error:
            if error.code != c.KERN_INVALID_CAPABILITY:
                raise
            # What was to be moved is used up all the same.
            child_name = self._new_name()
            self._task.calls.mach_port_allocate_name(self._child, c.MACH_PORT_RIGHT_DEAD_NAME, child_name)
            self._carried.append((transfer, c.MACH_PORT_DEAD))
        else:
            self._names[name] = child_name
            self._carried.append((transfer, child_name))
        return InheritedRight(child_name, _KINDS[transfer.disposition], transfer.brings_queue)

    def carry(self, transfer: Transfer) -> Remade:
        """The same for a right among arguments that are pickled."""
        name, kind, _ = self.put(transfer)
        return right_of_child, (name, kind, self._form)

    def done(self) -> None:
        """The child has started: what was moved is gone from here."""
        for transfer, _ in self._carried:
            transfer.done()

    def _new_name(self) -> int:
        self._made += 1
        return (_FIRST_INDEX + self._made) << c.PORT_NAME_INDEX_SHIFT | 3

    def undo(self) -> None:
        """The child did not start: take back what was moved."""
        for transfer, child_name in reversed(self._carried):
            if transfer.moves:
                with contextlib.suppress(MachError):
                    transfer.returned(self._take_back(transfer, child_name))

    def _take_back(self, transfer: Transfer, child_name: int) -> int:
        """The right's name after it came back."""
        if child_name == c.MACH_PORT_DEAD:
            return c.MACH_PORT_DEAD
        return self._task.calls.mach_port_extract_right(self._child, child_name, transfer.disposition)[0]


def right_of_child(name: int, kind: int, form: type[AnyTask] | None = None) -> Right:
    """The right that is under ``name`` in the task of this process, of a kind (MACH_MSG_TYPE_PORT_).

    Args:
        form: how it waits; None for as an ordinary task's rights do.
    """
    from machport.face.blocking import task_self

    right = received_right(task_self() if form is None else form.of_process(), name, kind)
    assert right is not None
    return right
