"""A client and a server as a manual of Mach has them, in one task: names, dispositions, headers."""

import struct

from machport import mach

REQUEST = 100


def header(bits: int, size: int, remote: int, local: int, number: int) -> bytes:
    return struct.pack("<IIIIII", bits, size, remote, local, 0, number)  # mach_msg_header_t


def main() -> None:
    task = mach.mach_task_self()
    port = mach.mach_port_allocate(task, mach.MACH_PORT_RIGHT_RECEIVE)
    notify = mach.mach_port_allocate(task, mach.MACH_PORT_RIGHT_RECEIVE)
    mach.mach_port_insert_right(task, port, port, mach.MACH_MSG_TYPE_MAKE_SEND)
    previous = mach.mach_port_request_notification(
        task, port, mach.MACH_NOTIFY_NO_SENDERS, 1, notify, mach.MACH_MSG_TYPE_MAKE_SEND_ONCE
    )
    print("registered before:", previous)

    message = bytearray(header(mach.MACH_MSG_TYPE_COPY_SEND, 28, port, 0, REQUEST) + struct.pack("<i", 42))
    print("sent:", mach.mach_msg(message, mach.MACH_SEND_MSG, len(message), 0, 0))

    received = bytearray(128)
    mach.mach_msg(received, mach.MACH_RCV_MSG, 0, len(received), port)
    _, size, _, local, _, number = struct.unpack_from("<IIIIII", received)
    print("received:", size, local == port, number, struct.unpack_from("<i", received, 24))

    mach.mach_port_deallocate(task, port)  # the last send right; the receive right stays
    mach.mach_msg(received, mach.MACH_RCV_MSG, 0, len(received), notify)
    print("no senders:", struct.unpack_from("<I", received, 20)[0] == mach.MACH_NOTIFY_NO_SENDERS)


if __name__ == "__main__":
    main()
