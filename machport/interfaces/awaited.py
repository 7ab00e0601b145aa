"""The caller's side for coroutines: as ``calling``, with a right of ``machport.aio``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from machport.abi.errors import DeadPort
from machport.interfaces.body import Packed, Unfit
from machport.interfaces.deadlines import end_of_call, time_left
from machport.interfaces.definition import Interface, Routine
from machport.interfaces.naming import DESCRIBE
from machport.interfaces.results import answered, check_description

if TYPE_CHECKING:
    from machport.aio.rights import SendRight


class Link:
    """Where the calls of a proxy go."""

    __slots__ = ("checked", "interface", "right", "timeout")

    def __init__(self, interface: Interface, right: SendRight, timeout: float | None) -> None:
        self.interface = interface
        self.right = right
        self.timeout = timeout
        self.checked = False

    async def check(self, end: int | None) -> None:
        """Ask the server what it is."""
        name = self.interface.name
        check_description(self.interface, await self.right.call(b"\x91\xc0", id=DESCRIBE, timeout=time_left(end, name)))
        self.checked = True


def method(interface: Interface, routine: Routine) -> Callable[..., Any]:
    """The method of a proxy for one routine."""

    def packed(link: Link, arguments: Any, keywords: dict[str, Any]) -> tuple[int | None, Packed]:
        end = end_of_call(link.timeout)
        try:
            return end, routine.request.pack(end, routine.bind(arguments, keywords))
        except Unfit as error:
            raise routine.bad_arguments(str(error)) from None

    async def called(self: Any, /, *arguments: Any, **keywords: Any) -> Any:
        link: Link = self._machport_link
        end, (body, rights, memory) = packed(link, arguments, keywords)
        try:
            if not link.checked:
                await link.check(end)
            left = time_left(end, routine.where)
            message = await link.right.call(body, id=routine.id, rights=rights, memory=memory, timeout=left)
        except DeadPort:
            link.checked = False
            raise
        return answered(interface, message, routine.id, routine.answer, routine.where)[0]

    async def sent(self: Any, /, *arguments: Any, **keywords: Any) -> None:
        link: Link = self._machport_link
        end, (body, rights, memory) = packed(link, arguments, keywords)
        try:
            if not link.checked:
                await link.check(end)
            left = time_left(end, routine.where)
            await link.right.send(body, id=routine.id, rights=rights, memory=memory, timeout=left)
        except DeadPort:
            link.checked = False
            raise

    return sent if routine.oneway else called
