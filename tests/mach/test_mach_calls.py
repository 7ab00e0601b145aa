"""Every call of ``machport.mach`` with the manual's order of arguments, and what it gives back."""

from __future__ import annotations

import inspect
import os
from pathlib import Path

import pytest

import machport
from machport import mach

RECEIVE, SEND, DEAD_NAME = mach.MACH_PORT_RIGHT_RECEIVE, mach.MACH_PORT_RIGHT_SEND, mach.MACH_PORT_RIGHT_DEAD_NAME
MAKE_SEND, MAKE_SEND_ONCE = mach.MACH_MSG_TYPE_MAKE_SEND, mach.MACH_MSG_TYPE_MAKE_SEND_ONCE


@pytest.fixture
def port(self_task: int) -> int:
    """A receive right."""
    return mach.mach_port_allocate(self_task, RECEIVE)


@pytest.fixture
def sender(self_task: int, port: int) -> int:
    """The same name, with a send right to the port."""
    mach.mach_port_insert_right(self_task, port, port, MAKE_SEND)
    return port


def code_of(error: pytest.ExceptionInfo[machport.MachError]) -> int:
    return error.value.code


def test_every_call_has_a_docstring() -> None:
    calls = [
        call for name, call in vars(mach).items() if callable(call) and name.islower() and not name.startswith("_")
    ]
    assert len(calls) > 50
    assert all(inspect.getdoc(call) for call in calls)


def test_mach_task_self_is_one_name_for_all_who_ask(self_task: int) -> None:
    assert mach.mach_task_self() == self_task
    assert mach.mach_port_type(self_task, self_task) == mach.MACH_PORT_TYPE_SEND
    assert mach.mach_port_get_refs(self_task, self_task, SEND) == 1


def test_mach_port_allocate_makes_each_kind_that_can_be_made(self_task: int) -> None:
    kinds = {
        RECEIVE: mach.MACH_PORT_TYPE_RECEIVE,
        mach.MACH_PORT_RIGHT_PORT_SET: mach.MACH_PORT_TYPE_PORT_SET,
        DEAD_NAME: mach.MACH_PORT_TYPE_DEAD_NAME,
    }
    names = {mach.mach_port_allocate(self_task, right): type for right, type in kinds.items()}
    assert names.items() <= dict(mach.mach_port_names(self_task)).items()
    assert [mach.mach_port_type(self_task, name) for name in names] == list(names.values())


def test_mach_port_allocate_name_and_rename_use_the_names_they_are_given(self_task: int) -> None:
    mach.mach_port_allocate_name(self_task, RECEIVE, 0x123403)
    with pytest.raises(machport.AlreadyExists) as error:
        mach.mach_port_allocate_name(self_task, RECEIVE, 0x123403)
    assert code_of(error) == mach.KERN_NAME_EXISTS
    mach.mach_port_rename(self_task, 0x123403, 0x567803)
    assert mach.mach_port_type(self_task, 0x567803) == mach.MACH_PORT_TYPE_RECEIVE
    with pytest.raises(machport.InvalidName) as missing:
        mach.mach_port_type(self_task, 0x123403)
    assert code_of(missing) == mach.KERN_INVALID_NAME


def test_mach_reply_port_is_a_receive_right(self_task: int) -> None:
    assert mach.mach_port_type(self_task, mach.mach_reply_port()) == mach.MACH_PORT_TYPE_RECEIVE


def test_mach_port_allocate_full_and_construct_set_the_queue_limit(self_task: int) -> None:
    full = mach.mach_port_allocate_full(self_task, RECEIVE, 7)
    made = mach.mach_port_construct(self_task, mach.MPO_QLIMIT | mach.MPO_INSERT_SEND_RIGHT, 9, 0)
    assert [mach.mach_port_get_receive_status(self_task, name).qlimit for name in (full, made)] == [7, 9]
    assert mach.mach_port_type(self_task, made) == mach.MACH_PORT_TYPE_SEND_RECEIVE


def test_mach_port_destruct_drops_the_receive_right_and_the_references_it_is_told(self_task: int) -> None:
    name = mach.mach_port_construct(self_task, mach.MPO_INSERT_SEND_RIGHT | mach.MPO_CONTEXT_AS_GUARD, 0, 77)
    with pytest.raises(machport.InvalidArgument):
        mach.mach_port_destruct(self_task, name, -1, 78)
    mach.mach_port_destruct(self_task, name, -1, 77)
    with pytest.raises(machport.InvalidName):
        mach.mach_port_type(self_task, name)


def test_references_are_counted_changed_and_given_up(self_task: int, sender: int) -> None:
    mach.mach_port_mod_refs(self_task, sender, SEND, 3)
    assert mach.mach_port_get_refs(self_task, sender, SEND) == 4
    mach.mach_port_deallocate(self_task, sender)
    mach.mach_port_mod_refs(self_task, sender, SEND, -2)
    assert mach.mach_port_get_refs(self_task, sender, SEND) == 1
    mach.mach_port_mod_refs(self_task, sender, RECEIVE, -1)
    assert mach.mach_port_type(self_task, sender) == mach.MACH_PORT_TYPE_DEAD_NAME
    mach.mach_port_destroy(self_task, sender)
    assert sender not in dict(mach.mach_port_names(self_task))


def test_rights_go_into_another_task_and_come_out_again(self_task: int, port: int) -> None:
    child = mach.task_create(self_task)
    mach.mach_port_insert_right(child, 0x1003, port, MAKE_SEND)
    assert mach.mach_port_type(child, 0x1003) == mach.MACH_PORT_TYPE_SEND
    assert mach.mach_port_extract_right(child, 0x1003, mach.MACH_MSG_TYPE_MOVE_SEND) == (port, 17)
    once, kind = mach.mach_port_extract_right(self_task, port, MAKE_SEND_ONCE)
    assert (mach.mach_port_type(self_task, once), kind) == (mach.MACH_PORT_TYPE_SEND_ONCE, 18)


def test_a_notification_is_requested_replaced_and_cancelled_and_the_one_before_is_returned(
    self_task: int, sender: int
) -> None:
    notify = mach.mach_reply_port()

    def request(notify: int) -> int:
        return mach.mach_port_request_notification(
            self_task, sender, mach.MACH_NOTIFY_NO_SENDERS, 1, notify, MAKE_SEND_ONCE
        )

    assert request(notify) == mach.MACH_PORT_NULL
    previous = request(notify)
    assert mach.mach_port_type(self_task, previous) == mach.MACH_PORT_TYPE_SEND_ONCE
    assert mach.mach_port_get_receive_status(self_task, sender).nsrequest == 1
    assert request(mach.MACH_PORT_NULL) not in (mach.MACH_PORT_NULL, previous)
    assert mach.mach_port_get_receive_status(self_task, sender).nsrequest == 0


def test_attributes_of_a_receive_right_are_read_and_set(self_task: int, port: int) -> None:
    mach.mach_port_set_attributes(self_task, port, mach.MACH_PORT_LIMITS_INFO, [3])
    assert mach.mach_port_get_attributes(self_task, port, mach.MACH_PORT_LIMITS_INFO, 1) == [3]
    mach.mach_port_set_qlimit(self_task, port, 4)
    mach.mach_port_set_mscount(self_task, port, 5)
    mach.mach_port_set_seqno(self_task, port, 6)
    status = mach.mach_port_get_receive_status(self_task, port)
    assert (status.qlimit, status.mscount, status.seqno) == (4, 5, 6)
    mach.mach_port_set_context(self_task, port, 1 << 63)
    assert mach.mach_port_get_context(self_task, port) == 1 << 63
    mach.mach_port_insert_right(self_task, port, port, MAKE_SEND)
    assert mach.mach_port_get_srights(self_task, port) == 1


def test_a_guard_protects_a_receive_right_from_its_own_task(self_task: int, port: int) -> None:
    mach.mach_port_guard(self_task, port, 99, True)
    with pytest.raises(machport.InvalidRight):
        mach.mach_port_mod_refs(self_task, port, RECEIVE, -1)
    with pytest.raises(machport.InvalidArgument):
        mach.mach_port_unguard(self_task, port, 98)
    mach.mach_port_unguard(self_task, port, 99)
    mach.mach_port_mod_refs(self_task, port, RECEIVE, -1)


def test_members_of_port_sets_are_put_in_moved_listed_and_taken_out(self_task: int, port: int) -> None:
    one, other = (mach.mach_port_allocate(self_task, mach.MACH_PORT_RIGHT_PORT_SET) for _ in range(2))
    mach.mach_port_insert_member(self_task, port, one)
    assert mach.mach_port_get_set_status(self_task, one) == [port]
    mach.mach_port_move_member(self_task, port, other)
    assert mach.mach_port_get_set_status(self_task, one) == []
    mach.mach_port_extract_member(self_task, port, other)
    with pytest.raises(machport.InvalidRight) as error:
        mach.mach_port_move_member(self_task, port, mach.MACH_PORT_NULL)
    assert code_of(error) == mach.KERN_NOT_IN_SET


def test_a_task_is_created_without_anything_and_terminated_with_everything(self_task: int, sender: int) -> None:
    child = mach.task_create(self_task)
    assert mach.mach_port_names(child) == []
    assert mach.task_get_special_port(child, mach.TASK_BOOTSTRAP_PORT) == mach.MACH_PORT_NULL
    name = mach.mach_port_allocate(child, RECEIVE)
    right, _ = mach.mach_port_extract_right(child, name, MAKE_SEND)
    mach.task_terminate(child)
    assert mach.mach_port_type(self_task, right) == mach.MACH_PORT_TYPE_DEAD_NAME
    assert mach.mach_port_type(self_task, child) == mach.MACH_PORT_TYPE_DEAD_NAME
    with pytest.raises(machport.DeadTask) as error:
        mach.mach_port_names(child)
    assert code_of(error) == mach.KERN_INVALID_TASK


def test_special_and_registered_ports_are_kept_with_a_task(self_task: int, sender: int) -> None:
    child = mach.task_create(self_task)
    mach.task_set_special_port(child, mach.TASK_BOOTSTRAP_PORT, sender)
    assert mach.task_get_special_port(child, mach.TASK_BOOTSTRAP_PORT) == sender
    mach.mach_ports_register(child, [sender, mach.MACH_PORT_NULL])
    assert mach.mach_ports_lookup(child) == [sender, mach.MACH_PORT_NULL, mach.MACH_PORT_NULL]
    with pytest.raises(machport.InvalidArgument):
        mach.mach_ports_register(child, [sender] * 4)


def test_a_task_that_terminates_itself_has_nothing_left(self_task: int, port: int) -> None:
    mach.task_terminate(self_task)
    with pytest.raises(machport.DeadTask):
        mach.mach_reply_port()


def test_services_are_checked_in_registered_and_looked_up(self_task: int, sender: int) -> None:
    bp = mach.bootstrap_port()
    service = mach.bootstrap_check_in(bp, "checked in")
    assert mach.mach_port_type(self_task, service) == mach.MACH_PORT_TYPE_RECEIVE
    assert mach.bootstrap_look_up(bp, "checked in") == service
    mach.bootstrap_register(bp, "registered", sender)
    assert mach.bootstrap_look_up(bp, "registered") == sender
    for call, code in (
        (lambda: mach.bootstrap_check_in(bp, "checked in"), mach.BOOTSTRAP_SERVICE_ACTIVE),
        (lambda: mach.bootstrap_register(bp, "registered", sender), mach.BOOTSTRAP_NAME_IN_USE),
        (lambda: mach.bootstrap_look_up(bp, "nobody"), mach.BOOTSTRAP_UNKNOWN_SERVICE),
    ):
        with pytest.raises(machport.MachError) as error:
            call()
        assert code_of(error) == code


def test_a_service_that_died_is_forgotten_and_its_name_free(self_task: int) -> None:
    bp = mach.bootstrap_port()
    service = mach.bootstrap_check_in(bp, "service")
    mach.mach_port_mod_refs(self_task, service, RECEIVE, -1)
    with pytest.raises(machport.InvalidName):
        mach.bootstrap_look_up(bp, "service")
    mach.bootstrap_check_in(bp, "service")


@pytest.mark.parametrize("name", ["", "x" * 128, "a\0b"])
def test_a_service_name_that_does_not_fit_is_refused_before_it_is_sent(self_task: int, name: str) -> None:
    with pytest.raises(machport.InvalidArgument, match="1 to 127 bytes"):
        mach.bootstrap_look_up(mach.bootstrap_port(), name)


def test_bootstrap_calls_leave_no_names_behind(self_task: int, sender: int) -> None:
    bp = mach.bootstrap_port()
    before = mach.mach_port_names(self_task)
    mach.bootstrap_register(bp, "registered", sender)
    mach.mach_port_deallocate(self_task, mach.bootstrap_look_up(bp, "registered"))
    with pytest.raises(machport.InvalidName):
        mach.bootstrap_look_up(bp, "nobody")
    assert mach.mach_port_names(self_task) == before


def test_a_fileport_stands_for_the_open_file_and_its_position(self_task: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with path.open("rb", buffering=0) as file:
        right = mach.fileport_makeport(file.fileno())
        file.read(4)
        descriptor = mach.fileport_makefd(right)
    with open(descriptor, "rb") as same:
        assert same.read() == b"456789"
        assert not os.get_inheritable(descriptor)
    with pytest.raises(machport.InvalidRight):
        mach.fileport_makefd(self_task)
    with pytest.raises(machport.InvalidName):
        mach.fileport_makefd(0x999903)


def test_memory_is_allocated_written_read_and_given_up(self_task: int) -> None:
    address = mach.vm_allocate(5000)
    assert mach.vm_read(address, 5000) == bytes(5000)
    mach.vm_write(address, b"hello")
    assert mach.vm_read(address, 5) == b"hello"
    with pytest.raises(machport.InvalidArgument) as not_all:
        mach.vm_deallocate(address, 1)
    with pytest.raises(machport.InvalidArgument) as too_much:
        mach.vm_write(address, bytes(9000))
    assert code_of(not_all) == code_of(too_much) == mach.KERN_INVALID_ADDRESS
    mach.vm_deallocate(address, 5000)
    with pytest.raises(machport.InvalidArgument):
        mach.vm_read(16, 8)
    with pytest.raises(machport.InvalidArgument):
        mach.vm_allocate(0)
