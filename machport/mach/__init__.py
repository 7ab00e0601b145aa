"""The calls of Mach under the names of their manuals, with their order of arguments.

They speak for the task of this process, which joins the user's daemon at the first call.  Ports and tasks are names:
integers that mean something in this task only.  What a manual returns beside the code is returned; a code other than
success is raised as a ``MachError`` with that code.  ``mach_msg`` receives into the buffer that it is given.

Constants are those of the manuals, from ``machport.abi.constants``.
"""

from __future__ import annotations

from collections.abc import Callable

from machport.abi import constants as c
from machport.abi.constants import *  # noqa: F403
from machport.client.calls import Calls
from machport.client.process import process_task
from machport.mach import bootstrap, messages
from machport.mach.memory import vm_allocate as vm_allocate
from machport.mach.memory import vm_deallocate as vm_deallocate
from machport.mach.memory import vm_read as vm_read
from machport.mach.memory import vm_write as vm_write

_calls = Calls(process_task)

mach_reply_port = _calls.mach_reply_port
mach_port_names = _calls.mach_port_names
mach_port_type = _calls.mach_port_type
mach_port_rename = _calls.mach_port_rename
mach_port_allocate_name = _calls.mach_port_allocate_name
mach_port_allocate = _calls.mach_port_allocate
mach_port_allocate_full = _calls.mach_port_allocate_full
mach_port_construct = _calls.mach_port_construct
mach_port_destruct = _calls.mach_port_destruct
mach_port_destroy = _calls.mach_port_destroy
mach_port_deallocate = _calls.mach_port_deallocate
mach_port_get_refs = _calls.mach_port_get_refs
mach_port_mod_refs = _calls.mach_port_mod_refs
mach_port_insert_right = _calls.mach_port_insert_right
mach_port_extract_right = _calls.mach_port_extract_right
mach_port_request_notification = _calls.mach_port_request_notification
mach_port_get_attributes = _calls.mach_port_get_attributes
mach_port_set_attributes = _calls.mach_port_set_attributes
mach_port_set_qlimit = _calls.mach_port_set_qlimit
mach_port_get_receive_status = _calls.mach_port_get_receive_status
mach_port_set_mscount = _calls.mach_port_set_mscount
mach_port_set_seqno = _calls.mach_port_set_seqno
mach_port_get_srights = _calls.mach_port_get_srights
mach_port_get_context = _calls.mach_port_get_context
mach_port_set_context = _calls.mach_port_set_context
mach_port_guard = _calls.mach_port_guard
mach_port_unguard = _calls.mach_port_unguard
mach_port_peek = _calls.mach_port_peek
mach_port_move_member = _calls.mach_port_move_member
mach_port_insert_member = _calls.mach_port_insert_member
mach_port_extract_member = _calls.mach_port_extract_member
mach_port_get_set_status = _calls.mach_port_get_set_status
mach_task_self = _calls.mach_task_self
task_create = _calls.task_create
task_for_pid = _calls.task_for_pid
task_terminate = _calls.task_terminate
task_get_special_port = _calls.task_get_special_port
task_set_special_port = _calls.task_set_special_port
mach_ports_register = _calls.mach_ports_register
mach_ports_lookup = _calls.mach_ports_lookup
thread_abort = _calls.thread_abort
fileport_makeport = _calls.fileport_makeport
fileport_makefd = _calls.fileport_makefd


def mach_init() -> None:
    """Become a new task without any right: what a forked child calls, whose parent's rights are not its own."""
    process_task.restart()


def mach_msg(
    msg: bytearray,
    option: int,
    send_size: int,
    rcv_size: int,
    rcv_name: int,
    timeout: int = c.MACH_MSG_TIMEOUT_NONE,
    notify: int = c.MACH_PORT_NULL,
) -> int:
    """Send, receive, or send and then receive; see ``messages.mach_msg``."""
    return messages.mach_msg(_calls, msg, option, send_size, rcv_size, rcv_name, timeout, notify)


def mach_msg_destroy(msg: bytes | bytearray) -> None:
    """Drop the rights and memory of a message that was received, or that was never sent."""
    messages.mach_msg_destroy(_calls, msg)


def mach_msg_server(
    demux: Callable[[bytearray, bytearray], bool],
    max_size: int,
    rcv_name: int,
    options: int = c.MACH_MSG_OPTION_NONE,
) -> int:
    """Serve requests with ``demux(request, reply)`` until receiving fails; the code of that failure."""
    return messages.mach_msg_server(_calls, demux, max_size, rcv_name, options)


def mach_msg_server_once(
    demux: Callable[[bytearray, bytearray], bool],
    max_size: int,
    rcv_name: int,
    options: int = c.MACH_MSG_OPTION_NONE,
) -> None:
    """Serve one request with ``demux(request, reply)``."""
    messages.mach_msg_server_once(_calls, demux, max_size, rcv_name, options)


def bootstrap_port() -> int:
    """A send right to the task's bootstrap port; 0 if its parent gave it none."""
    return task_get_special_port(mach_task_self(), c.TASK_BOOTSTRAP_PORT)


def bootstrap_look_up(bp: int, service_name: str) -> int:
    """A send right to a service by its name."""
    return bootstrap.bootstrap_look_up(_calls, bp, service_name)


def bootstrap_check_in(bp: int, service_name: str) -> int:
    """The receive right of a service, under a name that nobody serves."""
    return bootstrap.bootstrap_check_in(_calls, bp, service_name)


def bootstrap_register(bp: int, service_name: str, port: int) -> None:
    """Give others copies of a send right by a name."""
    bootstrap.bootstrap_register(_calls, bp, service_name, port)
