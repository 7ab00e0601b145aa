"""Return codes, their names, and the exceptions that say whose doing it was."""

from __future__ import annotations

import copy
import pickle
import time

import pytest

import machport
from machport.abi import constants as c
from machport.abi import errors
from machport.abi.codes import CODES, NAMES, code_name
from machport.abi.errors import MachError, error_for
from machport.peer.death import Obituary
from machport.pool import errors as pool_errors

FAILURES = sorted({code: name for name, code in CODES.items() if code not in (0,)}.items(), key=lambda pair: pair[1])
#: Those of a pool are also errors of executors, which not every program has imported.
CLASSES = sorted(
    {
        kind
        for module in (errors, pool_errors)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, MachError)
    },
    key=lambda kind: kind.__name__,
)
#: Who is to blame; every other class is of one of these, and a limit is its own.
BLAME = (errors.Misuse, errors.PeerGone, errors.PeerFault, errors.NotNow, errors.DaemonGone, errors.Bug)
EXPORTED = [
    thing
    for thing in (getattr(machport, name) for name in machport.__all__)
    if isinstance(thing, type) and issubclass(thing, BaseException)
]
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
    where = "mach_msg in task server on name 0x103"
    assert str(error) == f"{where}: it was refused; {error.advice}: {NAMES[code]} (rule P8)"
    error = error_for(code, "it was refused; ask nicely")
    assert str(error) == f"it was refused; ask nicely: {NAMES[code]}", "whoever raises it may know better"


@pytest.mark.parametrize("code", KERN, ids=code_name)
def test_the_class_says_whose_doing_it_was(code: int) -> None:
    assert type(error_for(code)) is KERN[code]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_exception_is_of_the_base_and_of_a_builtin_kind(kind: type[MachError]) -> None:
    """What a Python programmer would catch; pickles and copies whole."""
    error = kind("says", call="call", task="task", name=7, rule="N1")
    if kind is not MachError and kind not in BLAME:
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


def test_every_class_is_exported() -> None:
    assert set(EXPORTED) == set(CLASSES)


@pytest.mark.parametrize("kind", [kind for kind in EXPORTED if kind is not MachError], ids=lambda kind: kind.__name__)
def test_every_exported_error_has_one_blame_and_says_what_to_do(kind: type[MachError]) -> None:
    blames = [blame for blame in (*BLAME, errors.LimitReached) if issubclass(kind, blame)]
    assert len(blames) == 1
    assert kind in blames or any(base.__module__ == "builtins" and base is not Exception for base in kind.__mro__[:-3])
    error = kind()
    assert kind.advice
    assert str(error).endswith(f"{kind.advice}: {code_name(kind.default_code)}")
    assert str(kind("it failed")) == f"it failed; {kind.advice}: {code_name(kind.default_code)}"
    assert str(kind("it failed; do that")) == f"it failed; do that: {code_name(kind.default_code)}"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_blame_is_caught_by_its_class() -> None:
    for code, blame in (
        (c.KERN_INVALID_NAME, errors.Misuse),
        (c.MACH_SEND_INVALID_DEST, errors.PeerGone),
        (c.MACH_RCV_TIMED_OUT, errors.NotNow),
        (c.KERN_NO_SPACE, errors.LimitReached),
    ):
        with pytest.raises(blame):
            raise error_for(code)
    for kind, other in ((errors.DaemonLost, errors.DaemonGone), (errors.ProtocolError, errors.Bug)):
        with pytest.raises(other):
            raise kind("")


def test_a_dead_port_says_which_it_was_and_who_died() -> None:
    """What was filled in travels with the error."""
    error = errors.ServerDied("the server died with this request", code=c.MIG_SERVER_DIED)
    error.port_label, error.holder, error.retry_safe = "jobs", "boss[1]", True
    error.death = Obituary("worker[7]", 7, 0.0, status=9)
    at = time.strftime("%H:%M:%S", time.localtime(0))
    said = f"the server died with this request (port 'jobs'): task worker[7] was killed by SIGKILL at {at}"
    assert str(error).startswith(f"{said}; find out whether it was carried out before you ask again: ")
    twin = pickle.loads(pickle.dumps(error))
    assert str(twin) == str(error)
    assert (twin.port_label, twin.holder, twin.retry_safe) == ("jobs", "boss[1]", True)
    assert twin.death == error.death
    plain = errors.DeadPort()
    assert str(plain).startswith("the port is dead, or the task has no right to send to it; get a right to a living")
    plain.death = error.death
    assert str(plain).startswith("the port is dead: task worker[7] was killed by SIGKILL at ")
    plain.port_label = "jobs"
    assert str(plain).startswith("port 'jobs' is dead: task worker[7] was killed by SIGKILL at ")
    ended = errors.QueueEnded("it ended; take another")
    ended.death = error.death
    assert str(ended).startswith("it ended: task worker[7] was killed by SIGKILL at ")
    assert str(ended).endswith("; take another: kIOReturnAborted")


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
    assert str(errors.InvalidName()) == f"{errors.InvalidName.advice}: KERN_INVALID_NAME"
    assert str(errors.TimedOut("nothing came; wait")) == "nothing came; wait: MACH_RCV_TIMED_OUT"
