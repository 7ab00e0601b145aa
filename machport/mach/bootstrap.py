"""The bootstrap calls: services by name, asked of the bootstrap port by messages."""

from __future__ import annotations

from collections.abc import Sequence

from machport.abi import constants as c
from machport.abi import message as layout
from machport.abi import traps as t
from machport.abi.bootstrap import CHECK_IN, LOOK_UP, REGISTER, pack_name
from machport.abi.errors import ServerDied, error_for
from machport.abi.message import Descriptor
from machport.client.calls import Calls

_BUFFER = 1024


def bootstrap_look_up(calls: Calls, bp: int, service_name: str) -> int:
    """A send right to the service.

    Raises:
        InvalidName: BOOTSTRAP_UNKNOWN_SERVICE, nobody has checked in or registered under the name.
    """
    return _request(calls, "bootstrap_look_up", LOOK_UP, bp, service_name)[0].name


def bootstrap_check_in(calls: Calls, bp: int, service_name: str) -> int:
    """The receive right of a service under a new name; its death makes the name free again.

    Raises:
        AlreadyExists: BOOTSTRAP_SERVICE_ACTIVE, somebody serves under the name.
    """
    return _request(calls, "bootstrap_check_in", CHECK_IN, bp, service_name)[0].name


def bootstrap_register(calls: Calls, bp: int, service_name: str, port: int) -> None:
    """Give others a copy of a send right under a name, until its port dies.

    Raises:
        AlreadyExists: BOOTSTRAP_NAME_IN_USE.
    """
    right = layout.port_descriptor(port, c.MACH_MSG_TYPE_COPY_SEND)
    _request(calls, "bootstrap_register", REGISTER, bp, service_name, [right])


def _request(
    calls: Calls, call: str, id: int, bp: int, service_name: str, rights: Sequence[Descriptor] = ()
) -> Sequence[Descriptor]:
    reply_port = calls.mach_reply_port()
    try:
        message = layout.pack(
            layout.bits(c.MACH_MSG_TYPE_COPY_SEND, c.MACH_MSG_TYPE_MAKE_SEND_ONCE),
            bp,
            reply_port,
            id,
            descriptors=rights,
            inline=pack_name(service_name),
        )
        answer = calls.mach_msg(t.MsgTrap(c.MACH_SEND_MSG | c.MACH_RCV_MSG, message, (), _BUFFER, reply_port))
    finally:
        calls.mach_port_mod_refs(calls.mach_task_self(), reply_port, c.MACH_PORT_RIGHT_RECEIVE, -1)
    if answer.code or answer.buffer is None:
        raise error_for(answer.code, call=call, task=calls.carrier.label, name=bp, rule=answer.rule)
    reply = layout.parse(answer.buffer[: layout.HEADER.unpack_from(answer.buffer)[1]])
    if reply.id == c.MACH_NOTIFY_SEND_ONCE:
        raise ServerDied("the bootstrap service did not answer", call=call, task=calls.carrier.label)
    code = int.from_bytes(reply.inline[8:12], "little", signed=True)
    if code:
        raise error_for(code, call=f"{call}({service_name!r})", task=calls.carrier.label)
    return reply.descriptors
