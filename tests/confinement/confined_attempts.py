"""What confined children try: each attempt is an expression, whose outcome is told by its name."""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import threading
import time
from collections.abc import Sequence

import machport

#: Numbers of calls that Python has no name for, on x86_64 and aarch64.
NUMBERS = {"ptrace": (101, 117), "process_vm_readv": (310, 270), "pidfd_getfd": (438, 438), "unshare": (272, 97)}
NUMBERS |= {
    "io_uring_setup": (425, 425),
    "clone3": (435, 435),
    "listns": (470, 470),
    "bpf": (321, 280),
    "ioprio_set": (251, 30),
}


def system(call: str, *arguments: int) -> int:
    """A system call by its number."""
    libc = ctypes.CDLL(None, use_errno=True)
    number = NUMBERS[call][os.uname().machine == "aarch64"]
    result: int = libc.syscall(number, *(ctypes.c_long(argument) for argument in arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def request(path: str, number: int) -> int:
    """An ioctl with any number, of a file that is open to be read."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(path) as file:
        if libc.ioctl(file.fileno(), ctypes.c_ulong(number), ctypes.create_string_buffer(128)) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return 0


def outcome(attempt: str) -> str:
    try:
        return f"done: {eval(attempt)!r}"
    except OSError as error:
        return type(error).__name__ if error.errno != 38 else "ENOSYS"


def attempt(port: machport.SendRight, attempts: Sequence[str]) -> None:
    """Tell the outcome of each attempt."""
    port.send("\n".join(map(outcome, attempts)).encode())


def serve(port: machport.ReceiveRight) -> None:
    """Answer requests: with their files' contents, by threads, from queues, and with the time."""
    for request in port:
        if request.rights:
            (right,) = request.rights
            assert isinstance(right, machport.SendRight)
            with open(right.open_file(), "rb") as file:
                request.reply(file.read())
        elif request.body == b"thread":
            answers: list[bytes] = []

            def call(answers: list[bytes] = answers) -> None:
                with machport.task_self().allocate() as other:
                    other.make_send().send(b"in a thread")
                    answers.append(other.receive(10).body)

            thread = threading.Thread(target=call)
            thread.start()
            thread.join()
            request.reply(answers[0])
        elif request.body == b"time":
            request.reply(str(time.localtime().tm_year).encode())
        elif request.body == b"stderr":
            print("said on stderr", file=sys.stderr, flush=True)
            request.reply(b"")
        elif request.body == b"child":
            request.reply(in_a_forked_child("open('/etc/passwd')").encode())
        else:
            request.reply(bytes(request.body).upper())


def in_a_forked_child(what: str) -> str:
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(write, outcome(what).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    return os.read(read, 100).decode()


def drain(queue: machport.DataQueue, port: machport.SendRight) -> None:
    for entry in queue:
        port.send(bytes(entry))


async def echo(port: machport.aio.ReceiveRight) -> None:
    async for request in port:
        request.reply(bytes(request.body).upper())


def connect(path: str) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(path)
        return "connected"
