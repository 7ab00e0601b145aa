"""``mach_msg`` with the manual's buffer: layout, trailers, memory by address, and what comes back when it fails."""

from __future__ import annotations

import struct
import threading

import pytest

import machport
from machport import mach
from machport.abi import message as layout

SEND, RCV = mach.MACH_SEND_MSG, mach.MACH_RCV_MSG
COPY, MAKE, MAKE_ONCE = mach.MACH_MSG_TYPE_COPY_SEND, mach.MACH_MSG_TYPE_MAKE_SEND, mach.MACH_MSG_TYPE_MAKE_SEND_ONCE


@pytest.fixture
def port(self_task: int) -> int:
    """A receive right with a send right under the same name, for five messages."""
    return mach.mach_port_construct(self_task, mach.MPO_INSERT_SEND_RIGHT)


def send(message: bytes, option: int = 0, timeout: int = 0) -> bytearray:
    """Send a message; the buffer afterwards."""
    buffer = bytearray(message)
    assert mach.mach_msg(buffer, SEND | option, len(buffer), 0, 0, timeout, 0) == mach.MACH_MSG_SUCCESS
    return buffer


def receive(port: int, option: int = 0, size: int = 1000) -> bytes:
    """The buffer with the next message, which must be there."""
    buffer = bytearray(size)
    mach.mach_msg(buffer, RCV | mach.MACH_RCV_TIMEOUT | option, 0, size, port, 0)
    return bytes(buffer)


def nothing_waits(port: int) -> bool:
    with pytest.raises(machport.TimedOut) as error:
        receive(port)
    return error.value.code == mach.MACH_RCV_TIMED_OUT


def elements(number: int) -> int:
    return number << mach.MACH_RCV_TRAILER_ELEMENTS_SHIFT


def test_a_received_header_names_the_port_in_local_and_the_reply_in_remote(self_task: int, port: int) -> None:
    reply = mach.mach_reply_port()
    send(layout.pack(layout.bits(COPY, MAKE_ONCE), port, reply, 77, inline=b"12345678"))
    message = receive(port)
    bits, size, remote, local, voucher, id = layout.HEADER.unpack_from(message)
    assert bits == layout.bits(mach.MACH_MSG_TYPE_PORT_SEND_ONCE, mach.MACH_MSG_TYPE_PORT_SEND)
    assert (size, local, voucher, id) == (32, port, 0, 77)
    assert mach.mach_port_type(self_task, remote) == mach.MACH_PORT_TYPE_SEND_ONCE
    assert message[24:32] == b"12345678"
    assert struct.unpack_from("<II", message, 32) == (0, 8)


@pytest.mark.parametrize(("number", "size"), [(0, 8), (1, 12), (2, 20), (3, 52), (4, 60), (7, 68)])
def test_the_trailer_has_the_elements_that_were_asked_for(self_task: int, port: int, number: int, size: int) -> None:
    mach.mach_port_set_context(self_task, port, 5)
    send(layout.pack(COPY, port))
    send(layout.pack(COPY, port))
    receive(port)
    trailer = layout.parse_trailer(receive(port, elements(number))[24 : 24 + size])
    assert trailer.size == size
    assert trailer.seqno == (1 if number >= 1 else None)
    assert trailer.sender == (trailer.audit[1:3] if trailer.audit else trailer.sender)
    assert trailer.context == (5 if number >= 4 else None)


@pytest.mark.parametrize("number", [5, 6, 8, 15])
def test_a_trailer_that_does_not_exist_takes_no_message(self_task: int, port: int, number: int) -> None:
    send(layout.pack(COPY, port))
    with pytest.raises(machport.MachError) as error:
        receive(port, elements(number))
    assert error.value.code == mach.MACH_RCV_INVALID_TRAILER
    receive(port)


def test_neither_half_does_nothing_and_succeeds(self_task: int) -> None:
    assert mach.mach_msg(bytearray(), mach.MACH_MSG_OPTION_NONE, 0, 0, 0) == mach.MACH_MSG_SUCCESS


def test_send_and_receive_in_one_call_is_a_question_and_its_answer(self_task: int, port: int) -> None:
    reply = mach.mach_reply_port()

    def answer() -> None:
        request = bytearray(100)
        mach.mach_msg(request, RCV, 0, 100, port)
        send(layout.pack(mach.MACH_MSG_TYPE_MOVE_SEND_ONCE, layout.HEADER.unpack_from(request)[2], 0, 178))

    server = threading.Thread(target=answer)
    server.start()
    message = bytearray(layout.pack(layout.bits(COPY, MAKE_ONCE), port, reply, 78)).ljust(100, b"\0")
    mach.mach_msg(message, SEND | RCV, 24, 100, reply)
    server.join()
    assert layout.HEADER.unpack_from(message)[5] == 178


def test_memory_travels_by_address_and_what_the_sender_writes_later_is_not_seen(self_task: int, port: int) -> None:
    address = mach.vm_allocate(6)
    mach.vm_write(address, b"before")
    send(layout.pack(COPY, port, descriptors=[layout.memory_descriptor(6, address=address)]))
    mach.vm_write(address, b"after!")
    (descriptor,) = layout.parse(receive(port)).descriptors
    assert descriptor.address not in (0, address)
    assert descriptor.deallocate == 1
    assert mach.vm_read(descriptor.address, descriptor.size) == b"before"
    mach.vm_deallocate(descriptor.address, descriptor.size)


def test_memory_sent_with_deallocate_leaves_the_sender(self_task: int, port: int) -> None:
    address = mach.vm_allocate(100)
    send(layout.pack(COPY, port, descriptors=[layout.memory_descriptor(100, address=address, deallocate=True)]))
    with pytest.raises(machport.InvalidArgument):
        mach.vm_deallocate(address, 100)


def test_empty_memory_has_no_address(self_task: int, port: int) -> None:
    send(layout.pack(COPY, port, descriptors=[layout.memory_descriptor(0, address=12345)]))
    (descriptor,) = layout.parse(receive(port)).descriptors
    assert (descriptor.address, descriptor.size) == (0, 0)


@pytest.mark.parametrize("deallocate", [False, True])
@pytest.mark.parametrize(("address", "size"), [(16, 8), (0, 1), (2**47, 4096), (2**64 - 8, 16)])
def test_memory_that_cannot_be_read_fails_the_send_and_not_the_process(
    self_task: int, port: int, address: int, size: int, deallocate: bool
) -> None:
    descriptor = layout.memory_descriptor(size, address=address, deallocate=deallocate)
    with pytest.raises(machport.MachError) as error:
        send(layout.pack(COPY, port, descriptors=[descriptor]))
    assert error.value.code == mach.MACH_SEND_INVALID_MEMORY
    assert nothing_waits(port)


def test_memory_that_cannot_be_deallocated_fails_the_send(self_task: int, port: int) -> None:
    address = mach.vm_allocate(5000)
    descriptor = layout.memory_descriptor(100, address=address, deallocate=True)
    with pytest.raises(machport.MachError) as error:
        send(layout.pack(COPY, port, descriptors=[descriptor]))
    assert error.value.code == mach.MACH_SEND_INVALID_MEMORY
    mach.vm_deallocate(address, 5000)


def test_a_body_that_fails_has_lost_what_stood_before_and_keeps_what_stands_behind(self_task: int, port: int) -> None:
    """M8: header rights and descriptors before the failing one are destroyed, later ones are untouched."""
    before, behind = mach.vm_allocate(100), mach.vm_allocate(100)
    moved, kept = (mach.mach_port_allocate(self_task, mach.MACH_PORT_RIGHT_RECEIVE) for _ in range(2))
    descriptors = [
        layout.memory_descriptor(100, address=before, deallocate=True),
        layout.port_descriptor(moved, mach.MACH_MSG_TYPE_MOVE_RECEIVE),
        layout.memory_descriptor(8, address=16),
        layout.port_descriptor(kept, mach.MACH_MSG_TYPE_MOVE_RECEIVE),
        layout.memory_descriptor(100, address=behind, deallocate=True),
    ]
    with pytest.raises(machport.MachError) as error:
        send(layout.pack(COPY, port, descriptors=descriptors))
    assert error.value.code == mach.MACH_SEND_INVALID_MEMORY

    names = dict(mach.mach_port_names(self_task))
    assert moved not in names
    assert kept in names
    with pytest.raises(machport.MachError):
        mach.vm_deallocate(before, 100)
    mach.vm_deallocate(behind, 100)


def test_more_memory_than_a_message_can_have_is_refused_and_the_task_lives_on(self_task: int, port: int) -> None:
    size = 300 * 1024 * 1024
    address = mach.vm_allocate(size)
    with pytest.raises(machport.LimitReached) as error:
        send(layout.pack(COPY, port, descriptors=[layout.memory_descriptor(size, address=address)]))
    assert error.value.code == mach.MACH_SEND_NO_BUFFER
    mach.vm_deallocate(address, size)
    assert nothing_waits(port)


def test_an_array_of_ports_travels_by_address(self_task: int, port: int) -> None:
    names = [mach.mach_port_construct(self_task, mach.MPO_INSERT_SEND_RIGHT) for _ in range(3)]
    address = mach.vm_allocate(16)
    mach.vm_write(address, struct.pack("<4I", *names, mach.MACH_PORT_DEAD))
    send(layout.pack(COPY, port, descriptors=[layout.port_array_descriptor(4, COPY, address=address)]))
    (array,) = layout.parse(receive(port)).descriptors
    assert (array.size, array.disposition) == (4, mach.MACH_MSG_TYPE_PORT_SEND)
    assert struct.unpack("<4I", mach.vm_read(array.address, 16)) == (*names, mach.MACH_PORT_DEAD)
    assert [mach.mach_port_get_refs(self_task, name, mach.MACH_PORT_RIGHT_SEND) for name in names] == [2, 2, 2]


def test_a_send_that_times_out_gives_the_message_back_with_what_it_holds(self_task: int, port: int) -> None:
    mach.mach_port_set_qlimit(self_task, port, 0)
    reply, moved = mach.mach_reply_port(), mach.mach_reply_port()
    address = mach.vm_allocate(4)
    mach.vm_write(address, b"here")
    message = bytearray(
        layout.pack(
            layout.bits(COPY, MAKE_ONCE),
            port,
            reply,
            descriptors=[
                layout.port_descriptor(moved, mach.MACH_MSG_TYPE_MOVE_RECEIVE),
                layout.port_descriptor(reply, MAKE),
                layout.memory_descriptor(4, address=address, deallocate=True),
            ],
        )
    )
    with pytest.raises(machport.TimedOut) as error:
        mach.mach_msg(message, SEND | mach.MACH_SEND_TIMEOUT, len(message), 0, 0, 0)
    assert error.value.code == mach.MACH_SEND_TIMED_OUT
    back = layout.parse(bytes(message))
    # Received form, not swapped (M18); one more reference, and a new send-once right (M19).
    assert back.bits == layout.bits(17, 18, complex=True)
    assert back.remote == port
    assert mach.mach_port_get_refs(self_task, port, mach.MACH_PORT_RIGHT_SEND) == 2
    assert mach.mach_port_type(self_task, back.local) == mach.MACH_PORT_TYPE_SEND_ONCE
    receive_right, send_right, memory = back.descriptors
    assert mach.mach_port_type(self_task, receive_right.name) == mach.MACH_PORT_TYPE_RECEIVE
    assert (send_right.name, send_right.disposition) == (reply, 17)
    assert mach.vm_read(memory.address, 4) == b"here"
    # Sent again as it is, it arrives.
    mach.mach_port_set_qlimit(self_task, port, 1)
    mach.mach_msg(message, SEND, len(message), 0, 0)
    # The memory was taken by the first send, given back elsewhere, and taken by the second one (M20).
    for region in (address, memory.address):
        with pytest.raises(machport.InvalidArgument):
            mach.vm_deallocate(region, 4)
    assert mach.mach_port_get_refs(self_task, port, mach.MACH_PORT_RIGHT_SEND) == 1
    arrived = layout.parse(receive(port, size=layout.HEADER.unpack_from(message)[1] + 8)[:-8])
    assert mach.vm_read(arrived.descriptors[2].address, 4) == b"here"


def test_a_refused_send_leaves_buffer_and_rights_as_they_were(self_task: int, port: int) -> None:
    moved = mach.mach_reply_port()
    before = layout.pack(COPY, 0x999903, descriptors=[layout.port_descriptor(moved, 16)])
    names = mach.mach_port_names(self_task)
    message = bytearray(before)
    with pytest.raises(machport.DeadPort) as error:
        mach.mach_msg(message, SEND, len(message), 0, 0)
    assert error.value.code == mach.MACH_SEND_INVALID_DEST
    assert error.value.name == 0x999903
    assert message == before
    assert mach.mach_port_names(self_task) == names


def test_a_bad_right_in_the_body_destroys_what_was_taken(self_task: int, port: int) -> None:
    moved = mach.mach_reply_port()
    rights = [layout.port_descriptor(moved, 16), layout.port_descriptor(0x999903, COPY)]
    with pytest.raises(machport.InvalidRight) as error:
        send(layout.pack(COPY, port, descriptors=rights))
    assert error.value.code == mach.MACH_SEND_INVALID_RIGHT
    assert moved not in dict(mach.mach_port_names(self_task))


@pytest.mark.parametrize("size", [0, 20, 26])
def test_a_message_shorter_than_its_header_is_too_small(self_task: int, port: int, size: int) -> None:
    buffer = bytearray(layout.pack(COPY, port, inline=bytes(8)))
    with pytest.raises(machport.MachError) as error:
        mach.mach_msg(buffer, SEND, size, 0, 0)
    assert error.value.code == mach.MACH_SEND_MSG_TOO_SMALL


def test_sizes_that_the_buffer_does_not_have_are_refused(self_task: int, port: int) -> None:
    with pytest.raises(machport.MachError) as sending:
        mach.mach_msg(bytearray(24), SEND, 25, 0, 0)
    assert sending.value.code == mach.MACH_SEND_INVALID_DATA
    with pytest.raises(machport.MachError) as receiving:
        mach.mach_msg(bytearray(24), RCV, 0, 25, port)
    assert receiving.value.code == mach.MACH_RCV_INVALID_DATA


def test_a_message_too_large_stays_with_rcv_large_and_only_its_size_is_written(self_task: int, port: int) -> None:
    send(layout.pack(COPY, port, id=5, inline=bytes(100)))
    small = bytearray(b"\xee" * 60)
    with pytest.raises(machport.MessageTooLarge) as error:
        mach.mach_msg(small, RCV | mach.MACH_RCV_LARGE, 0, 60, port)
    assert error.value.code == mach.MACH_RCV_TOO_LARGE
    assert small == b"\xee" * 4 + (124).to_bytes(4, "little") + b"\xee" * 52
    with pytest.raises(machport.MessageTooLarge):
        mach.mach_msg(small, RCV | mach.MACH_RCV_LARGE | mach.MACH_RCV_LARGE_IDENTITY, 0, 60, port)
    assert small == b"\xee" * 4 + (124).to_bytes(4, "little") + b"\xee" * 4 + port.to_bytes(4, "little") + b"\xee" * 44
    assert layout.HEADER.unpack_from(receive(port))[5] == 5


def test_a_message_too_large_without_rcv_large_is_taken_and_destroyed(self_task: int, port: int) -> None:
    reply = mach.mach_reply_port()
    send(layout.pack(layout.bits(COPY, MAKE_ONCE), port, reply, 5, inline=bytes(100)))
    with pytest.raises(machport.MessageTooLarge):
        receive(port, size=60)
    assert nothing_waits(port)
    assert layout.HEADER.unpack_from(receive(reply))[5] == mach.MACH_NOTIFY_SEND_ONCE


def test_mach_msg_destroy_gives_up_a_received_message_and_everything_in_it(self_task: int, port: int) -> None:
    """M32: reply right, rights and memory; the local port is not touched."""
    reply, array = mach.mach_reply_port(), mach.vm_allocate(4)
    carried = [mach.mach_port_construct(self_task, mach.MPO_INSERT_SEND_RIGHT) for _ in range(3)]
    mach.vm_write(array, struct.pack("<I", carried[2]))
    before = mach.mach_port_names(self_task)
    moved = mach.mach_reply_port()
    memory = mach.vm_allocate(9)
    send(
        layout.pack(
            layout.bits(COPY, MAKE_ONCE),
            port,
            reply,
            descriptors=[
                layout.port_descriptor(moved, mach.MACH_MSG_TYPE_MOVE_RECEIVE),
                layout.port_descriptor(carried[0], COPY),
                layout.port_descriptor(carried[1], MAKE_ONCE),
                layout.port_array_descriptor(1, COPY, address=array),
                layout.memory_descriptor(9, address=memory, deallocate=True),
            ],
        )
    )
    message = receive(port)
    regions = [d.address for d in layout.parse(message[: layout.HEADER.unpack_from(message)[1]]).descriptors[3:]]
    mach.mach_msg_destroy(message)
    assert mach.mach_port_names(self_task) == before
    assert [mach.mach_port_get_refs(self_task, name, mach.MACH_PORT_RIGHT_SEND) for name in carried] == [1, 1, 1]
    for dropped in (reply, carried[1]):
        assert layout.HEADER.unpack_from(receive(dropped))[5] == mach.MACH_NOTIFY_SEND_ONCE
    for address, size in zip(regions, (4, 9), strict=True):
        with pytest.raises(machport.InvalidArgument):
            mach.vm_deallocate(address, size)


def test_mach_msg_destroy_of_a_message_that_was_never_sent_makes_what_it_would_have_made(
    self_task: int, port: int
) -> None:
    mach.mach_msg_destroy(
        layout.pack(
            layout.bits(MAKE_ONCE),
            port,
            descriptors=[layout.port_descriptor(port, MAKE), layout.port_descriptor(port, COPY)],
        )
    )
    status = mach.mach_port_get_receive_status(self_task, port)
    assert (status.mscount, status.srights, status.msgcount) == (2, 1, 1)
    assert layout.HEADER.unpack_from(receive(port))[5] == mach.MACH_NOTIFY_SEND_ONCE


def test_mach_port_peek_tells_of_a_message_and_leaves_it(self_task: int, port: int) -> None:
    send(layout.pack(COPY, port, id=5))
    send(layout.pack(COPY, port, id=6, inline=bytes(4)))
    assert mach.mach_port_peek(self_task, port, 0)[:3] == (0, 24, 5)
    assert mach.mach_port_peek(self_task, port, 1)[:3] == (1, 28, 6)
    assert layout.HEADER.unpack_from(receive(port))[5] == 5


def answer_upper(request: bytearray, reply: bytearray) -> bool:
    """A demultiplexer that knows id 10 and what ends it, id 11."""
    message = layout.parse(bytes(request[: layout.HEADER.unpack_from(request)[1]]))
    if message.id == 11:
        mach.mach_port_mod_refs(mach.mach_task_self(), message.local, mach.MACH_PORT_RIGHT_RECEIVE, -1)
        return True
    if message.id != 10:
        return False
    answer = layout.pack(layout.bits(message.remote_disposition), message.remote, 0, 110, inline=message.inline.upper())
    reply[: len(answer)] = answer
    return True


def test_mach_msg_server_once_answers_one_request(self_task: int, port: int) -> None:
    reply = mach.mach_reply_port()
    send(layout.pack(layout.bits(COPY, MAKE_ONCE), port, reply, 10, inline=b"text"))
    mach.mach_msg_server_once(answer_upper, 200, port)
    assert receive(reply)[24:28] == b"TEXT"


def test_mach_msg_server_goes_on_after_bad_requests_and_ends_with_the_code_of_its_port(
    self_task: int, port: int
) -> None:
    reply, gone = mach.mach_reply_port(), mach.mach_reply_port()
    send(layout.pack(layout.bits(COPY, MAKE_ONCE), port, reply, 12))  # not known: dropped
    send(layout.pack(layout.bits(COPY, MAKE_ONCE), port, reply, 10, inline=bytes(1000)))  # too large
    send(layout.pack(layout.bits(COPY, MAKE_ONCE), port, gone, 10))
    mach.mach_port_mod_refs(self_task, gone, mach.MACH_PORT_RIGHT_RECEIVE, -1)  # answered to nobody
    send(layout.pack(layout.bits(COPY, MAKE_ONCE), port, reply, 10, inline=b"text"))
    send(layout.pack(COPY, port, id=11))
    names = {name for name, _ in mach.mach_port_names(self_task)}
    assert mach.mach_msg_server(answer_upper, 200, port) == mach.MACH_RCV_INVALID_NAME
    ids = [layout.HEADER.unpack_from(receive(reply))[5] for _ in range(3)]
    assert ids == [mach.MACH_NOTIFY_SEND_ONCE, mach.MACH_NOTIFY_SEND_ONCE, 110]
    assert {name for name, _ in mach.mach_port_names(self_task)} <= names
