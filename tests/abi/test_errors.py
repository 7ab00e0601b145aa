"""Return codes, their names, and the exceptions that say whose doing it was."""

from __future__ import annotations

import copy
import pickle

import pytest

from machport.abi import constants as c
from machport.abi import errors
from machport.abi.codes import CODES, NAMES, code_name
from machport.abi.errors import MachError, error_for

FAILURES = sorted({code: name for name, code in CODES.items() if code not in (0,)}.items(), key=lambda pair: pair[1])
CLASSES = sorted(
    (kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MachError)),
    key=lambda kind: kind.__name__,
)
KERN = {
    c.KERN_INVALID_NAME: errors.InvalidName,
    c.KERN_INVALID_RIGHT: errors.InvalidRight,
    c.KERN_INVALID_CAPABILITY: errors.InvalidRight,
    c.KERN_INVALID_VALUE: errors.InvalidArgument,
    c.KERN_INVALID_ARGUMENT: errors.InvalidArgument,
    c.KERN_INVALID_TASK: errors.DeadTask,
    c.KERN_NAME_EXISTS: errors.AlreadyExists,
    c.KERN_RIGHT_EXISTS: errors.AlreadyExists,
    c.KERN_ALREADY_IN_SET: errors.AlreadyExists,
    c.KERN_NOT_IN_SET: errors.InvalidRight,
    c.KERN_NO_SPACE: errors.LimitReached,
    c.KERN_UREFS_OVERFLOW: errors.LimitReached,
    c.KERN_RESOURCE_SHORTAGE: errors.LimitReached,
    c.MACH_SEND_INVALID_DEST: errors.DeadPort,
    c.MACH_RCV_PORT_DIED: errors.DeadPort,
    c.MACH_SEND_TIMED_OUT: errors.TimedOut,
    c.MACH_RCV_TIMED_OUT: errors.TimedOut,
    c.MACH_SEND_INTERRUPTED: errors.Interrupted,
    c.MACH_RCV_INTERRUPTED: errors.Interrupted,
    c.MACH_RCV_TOO_LARGE: errors.MessageTooLarge,
    c.MACH_SEND_TOO_LARGE: errors.MessageTooLarge,
    c.MIG_SERVER_DIED: errors.ServerDied,
    c.BOOTSTRAP_UNKNOWN_SERVICE: errors.InvalidName,
    c.BOOTSTRAP_NAME_IN_USE: errors.AlreadyExists,
    c.kIOReturnUnderrun: errors.QueueEmpty,
    c.kIOReturnOverrun: errors.QueueFull,
    c.kIOReturnNoSpace: errors.EntryTooLarge,
    c.kIOReturnBadArgument: errors.QueueMisuse,
}


@pytest.mark.parametrize(("code", "name"), FAILURES, ids=[name for _, name in FAILURES])
def test_every_code_has_its_name_and_its_exception(code: int, name: str) -> None:
    """One base for all; the code, the call, the task, the name and the rule are kept."""
    assert CODES[name] == code
    assert code_name(code) == NAMES[code]
    assert CODES[NAMES[code]] == code
    error = error_for(code, "it was refused", call="mach_msg", task="server", name=0x103, rule="P8")
    assert isinstance(error, MachError)
    assert error.code == code
    assert str(error) == f"mach_msg in task server on name 0x103: it was refused: {NAMES[code]} (rule P8)"


@pytest.mark.parametrize("code", KERN, ids=code_name)
def test_the_class_says_whose_doing_it_was(code: int) -> None:
    assert type(error_for(code)) is KERN[code]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_exception_is_of_the_base_and_of_a_builtin_kind(kind: type[MachError]) -> None:
    """What a Python programmer would catch; pickles and copies whole."""
    error = kind("says", call="call", task="task", name=7, rule="N1")
    if kind is not MachError:
        builtins = [base for base in kind.__mro__ if base.__module__ == "builtins"]
        assert builtins[0] is not Exception
    assert error.code == kind.default_code
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is kind
        assert (twin.code, twin.says, twin.call, twin.task, twin.name, twin.rule) == (
            error.code,
            "says",
            "call",
            "task",
            7,
            "N1",
        )
        assert str(twin) == str(error)


@pytest.mark.parametrize("code", [c.MACH_SEND_TIMED_OUT, c.MACH_RCV_BODY_ERROR, c.MACH_RCV_HEADER_ERROR])
@pytest.mark.parametrize(
    ("bits", "names"),
    [
        (c.MACH_MSG_IPC_SPACE, "MACH_MSG_IPC_SPACE"),
        (c.MACH_MSG_VM_SPACE | c.MACH_MSG_IPC_KERNEL, "MACH_MSG_VM_SPACE|MACH_MSG_IPC_KERNEL"),
        (c.MACH_MSG_VM_KERNEL, "MACH_MSG_VM_KERNEL"),
    ],
)
def test_shortage_bits_are_shown_and_do_not_change_the_class(code: int, bits: int, names: str) -> None:
    """M21, M28."""
    assert code_name(code | bits) == f"{code_name(code)}|{names}"
    assert type(error_for(code | bits)) is type(error_for(code))
    assert error_for(code | bits).code == code | bits


def test_0_is_success_in_every_family() -> None:
    assert code_name(0) == "KERN_SUCCESS"
    assert CODES["MACH_MSG_SUCCESS"] == CODES["kIOReturnSuccess"] == CODES["BOOTSTRAP_SUCCESS"] == 0


@pytest.mark.parametrize("code", [-1, 1234, 0x10009999])
def test_an_unknown_code_is_shown_as_a_number(code: int) -> None:
    assert code_name(code) == f"{code:#x}"
    assert type(error_for(code)) is errors.InvalidArgument


def test_options_are_not_codes() -> None:
    """They share prefixes with codes."""
    assert not {"MACH_SEND_MSG", "MACH_RCV_LARGE", "MACH_SEND_TIMEOUT", "BOOTSTRAP_MAX_NAME_LEN"} & set(CODES)


def test_an_error_without_particulars_says_its_code() -> None:
    assert str(errors.InvalidName()) == "KERN_INVALID_NAME"
    assert str(errors.TimedOut("nothing came")) == "nothing came: MACH_RCV_TIMED_OUT"
