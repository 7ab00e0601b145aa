"""The public names: exported once, each with a docstring."""

from __future__ import annotations

import inspect

import pytest

import machport
from machport import iokit, mach

CALLS = [
    "allocate",
    "allocate_name",
    "allocate_full",
    "construct",
    "destruct",
    "deallocate",
    "destroy",
    "mod_refs",
    "get_refs",
    "type",
    "names",
    "rename",
    "insert_right",
    "extract_right",
    "request_notification",
    "get_attributes",
    "set_attributes",
    "set_mscount",
    "set_seqno",
    "get_srights",
    "move_member",
    "insert_member",
    "extract_member",
    "get_set_status",
    "peek",
    "get_context",
    "set_context",
    "set_qlimit",
    "get_receive_status",
]
OTHERS = [
    "mach_msg",
    "mach_msg_destroy",
    "mach_msg_server",
    "mach_msg_server_once",
    "mach_reply_port",
    "mach_task_self",
    "task_create",
    "task_terminate",
    "task_get_special_port",
    "task_set_special_port",
    "mach_ports_register",
    "mach_ports_lookup",
    "bootstrap_look_up",
    "bootstrap_check_in",
    "bootstrap_register",
    "fileport_makeport",
    "fileport_makefd",
]
QUEUE = [
    "IODataQueueAllocateNotificationPort",
    "IODataQueueSetNotificationPort",
    "IODataQueueDataAvailable",
    "IODataQueuePeek",
    "IODataQueueDequeue",
    "IODataQueueEnqueue",
    "IODataQueueWaitForAvailableData",
]


@pytest.mark.parametrize("name", machport.__all__)
def test_every_public_name_has_a_docstring_and_documents_its_methods(name: str) -> None:
    thing = getattr(machport, name)
    assert inspect.getdoc(thing)
    if inspect.isclass(thing):
        for attribute, value in vars(thing).items():
            if callable(value) and not attribute.startswith("_") and thing.__module__.startswith("machport.face"):
                assert inspect.getdoc(value) or attribute in ("move", "close"), f"{name}.{attribute}"


def test_the_public_names_are_in_order_and_are_all() -> None:
    assert machport.__all__ == sorted(machport.__all__)
    public = {name for name, value in vars(machport).items() if not name.startswith("_") and inspect.isclass(value)}
    assert public <= set(machport.__all__)


@pytest.mark.parametrize("name", [f"mach_port_{name}" for name in CALLS] + OTHERS)
def test_every_call_of_the_manual_is_there(name: str) -> None:
    assert inspect.getdoc(getattr(mach, name))


@pytest.mark.parametrize("name", QUEUE)
def test_every_function_of_the_data_queue_is_there(name: str) -> None:
    assert inspect.getdoc(getattr(iokit, name))


def test_every_exception_is_of_one_base_and_a_builtin_kind() -> None:
    blames = {machport.MachError, machport.Misuse, machport.PeerGone, machport.NotNow}
    blames |= {machport.PeerFault, machport.DaemonGone, machport.Bug}
    for name in machport.__all__:
        thing = getattr(machport, name)
        if inspect.isclass(thing) and issubclass(thing, Exception):
            assert issubclass(thing, machport.MachError)
            builtin = [base for base in thing.__mro__ if base.__module__ == "builtins"]
            assert thing in blames or builtin[0] is not Exception, name
