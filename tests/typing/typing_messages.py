"""What the types say about messages, notifications and errors.  mypy and pyright read this; nobody runs it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_type

import machport
from machport import Message, Notification, ReceiveRight, Right


def receiving(port: ReceiveRight) -> None:
    assert_type(port.receive(timeout=0), Message)
    assert_type(port.receive_many(8, timeout=None), list[Message])
    for message in port:
        assert_type(message, Message)
    messages: Iterator[Message] = iter(port)
    assert_type(next(messages), Message)


def serving(port: ReceiveRight, request: Message) -> None:
    def length(request: Message) -> int:
        return len(request.body)

    port.serve(lambda request: request.body.upper())
    port.serve(lambda request: None)
    assert_type(port.reply_and_receive(request, b"", timeout=1), Message)
    port.serve(length)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def what_a_message_has(message: Message) -> None:
    assert_type(message.id, int)
    assert_type(message.body, bytes)
    assert_type(message.view, memoryview)
    assert_type(message.rights, list[Right | None])
    assert_type(message.memory, list[memoryview])
    assert_type(message.sender, tuple[int, int])
    assert_type(message.pid, int)
    assert_type(message.expects_reply, bool)
    message.reply(bytearray(b""), id=3)
    message.reply("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def notifications_are_told_apart_by_their_class(message: Message) -> None:
    match message:
        case machport.DeadNameNotification() | machport.PortDeletedNotification():
            assert_type(message.name, int)
        case machport.SendPossibleNotification():
            assert_type(message.name, int)
        case machport.NoSendersNotification():
            assert_type(message.count, int)
        case machport.PortDestroyedNotification():
            assert_type(message.right, ReceiveRight)
        case machport.SendOnceNotification() | Notification():
            assert_type(message.word, int)
        case _:
            message.count.bit_length()  # type: ignore[attr-defined]  # pyright: ignore


def errors(error: machport.MachError) -> None:
    assert_type(error.code, int)
    assert_type(error.call, str)
    assert_type(error.task, str)
    assert_type(error.name, int | None)
    assert_type(error.rule, str)


def errors_tell_whose_doing_it_was(error: machport.MachError) -> str:
    match error:
        case machport.ServerDied():
            assert_type(error.retry_safe, bool)
            return error.port_label
        case machport.PeerGone() | machport.PeerFault():
            return "theirs"
        case machport.Misuse() | machport.LimitReached():
            return "ours"
        case machport.NotNow() | machport.DaemonGone() | machport.Bug():
            return "nobody's"
        case _:
            return ""


def errors_are_also_what_python_calls_them() -> None:
    lookup: list[type[LookupError]] = [machport.InvalidName]
    value: list[type[ValueError]] = [
        machport.InvalidRight,
        machport.InvalidArgument,
        machport.ClosedRight,
        machport.MessageTooLarge,
        machport.QueueMisuse,
        machport.EntryTooLarge,
        machport.CorruptQueue,
    ]
    runtime: list[type[RuntimeError]] = [machport.ForkedTask, machport.ProtocolError]
    missing: list[type[NotImplementedError]] = [machport.ConfinementUnavailable]
    denied: list[type[PermissionError]] = [machport.AccessDenied]
    system: list[type[OSError]] = [
        machport.AlreadyExists,
        machport.DeadPort,
        machport.DeadTask,
        machport.ServerDied,
        machport.TimedOut,
        machport.Interrupted,
        machport.DaemonLost,
        machport.DaemonUnavailable,
        machport.PeerDied,
        machport.ProgramNotStarted,
        machport.QueueEmpty,
        machport.QueueFull,
    ]
    late: list[type[TimeoutError]] = [machport.TimedOut]
    limit: list[type[OverflowError]] = [machport.LimitReached]
    ended: list[type[EOFError]] = [machport.QueueEnded, machport.PeerDied]
    everything: list[type[machport.MachError]] = [machport.QueueEnded]
    print(lookup, value, runtime, missing, denied, system, late, limit, ended, everything)
