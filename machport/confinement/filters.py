"""Which system calls a confined process is refused, with EPERM or EACCES: no filter ever kills.

What Landlock looks after (opening files, signals) passes here, unless this system's Landlock cannot.  Refused is what
Landlock does not see, and what would lead around it.
"""

from __future__ import annotations

import errno
from typing import Final

from machport.confinement.bpf import ALLOW, Clause, Rule, assemble, refuse
from machport.confinement.syscalls import LAST, NUMBERS, Machine, number

_NOT_PERMITTED: Final = refuse(errno.EPERM)
_NO_ACCESS: Final = refuse(errno.EACCES)

#: The argument that says whose limits and priorities are set; only one's own may be, and 0 stands for oneself.
_WHOSE: Final = {
    "prlimit64": 0,
    "sched_setaffinity": 0,
    "sched_setscheduler": 0,
    "sched_setparam": 0,
    "sched_setattr": 0,
    "setpriority": 1,
    "ioprio_set": 1,
}
#: Of these, what the first argument says beside: one's own group, or all processes of one's user.
_WHOSE_ALL: Final = {"setpriority": (1, 2), "ioprio_set": (2, 3)}
#: Refused without the signals of Landlock, but for a process's own number as first argument.
_SIGNALS: Final = ("kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo")
#: Every flag of ``clone`` that makes a namespace.
_NAMESPACES: Final = 0x7E020000
#: Requests that write into the input of a terminal, or paste into it.
_TERMINAL: Final = (0x5412, 0x541C)
#: Requests and commands that let the system send signals to whomever one likes.
_OWNERS_BY_IOCTL: Final = (0x8901, 0x8902)
_OWNERS_BY_FCNTL: Final = (8, 15)
#: Requests that set attributes of a file which is open only to be read, or seal it; commands that hold up who opens it.
_ATTRIBUTES: Final = (0x40086602, 0x401C5820, 0x40806685)
_LEASES: Final = (1024, 1026)
_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_STREAM, _SEQPACKET = 1, 5
_TYPE: Final = 0xF

#: What a rule of its own decides, or no rule; every other call of the table is refused.
_DECIDED: Final = {
    *_WHOSE,
    *_SIGNALS,
    "tkill",
    "pidfd_send_signal",
    "truncate",
    "execve",
    "execveat",
    "socket",
    "socketpair",
    "connect",
    "bind",
    "listen",
    "clone",
    "clone3",
    "fcntl",
    "ioctl",
    "capset",
    "seccomp",
    "landlock_create_ruleset",
    "landlock_add_rule",
    "landlock_restrict_self",
}


def filter_for(
    machine: Machine, pid: int, *, network: bool, executes: bool, scopes_signals: bool, sees_truncation: bool
) -> bytes:
    """The filter's program.

    Args:
        pid: of the process that takes it on.
        network: it may make sockets of the internet.
        executes: it may start other programs, as far as Landlock lets it.
        scopes_signals, sees_truncation: Landlock looks after signals, and after ``truncate``.
    """
    rules: list[Rule] = []

    def rule(call: str, otherwise: int, *clauses: Clause) -> None:
        known = number(call, machine.column)
        if known is not None:
            rules.append(Rule(known, otherwise, clauses))

    for call in NUMBERS.keys() - _DECIDED:
        rule(call, _NOT_PERMITTED)
    for call, argument in _WHOSE.items():
        all_of = [Clause(0, which, _NOT_PERMITTED) for which in _WHOSE_ALL.get(call, ())]
        rule(call, _NOT_PERMITTED, *all_of, Clause(argument, 0, ALLOW))
    if not sees_truncation:
        rule("truncate", _NO_ACCESS)
    if not executes:
        rule("execve", _NO_ACCESS)
        rule("execveat", _NO_ACCESS)
    if not scopes_signals:
        for call in _SIGNALS:
            rule(call, _NOT_PERMITTED, Clause(0, pid, ALLOW))
        rule("tkill", _NOT_PERMITTED)
        rule("pidfd_send_signal", _NOT_PERMITTED)

    # A connected pair reaches nobody else; a socket that is not connected, or may be connected anew, does.
    pairs = [Clause(1, kind, ALLOW, mask=_TYPE) for kind in (_STREAM, _SEQPACKET)]
    others = [Clause(0, domain, _NO_ACCESS) for domain in (0, _AF_INET, _AF_INET6)]
    rule("socketpair", _NO_ACCESS, *others, *pairs)
    if network:
        rule("socket", _NO_ACCESS, Clause(0, _AF_INET, ALLOW), Clause(0, _AF_INET6, ALLOW))
    else:
        for call in ("socket", "connect", "bind", "listen"):
            rule(call, _NO_ACCESS)

    rule("clone", ALLOW, Clause(0, _NAMESPACES, _NOT_PERMITTED, any_bit=True))
    # Its flags are where no filter sees them; whoever is told that it is not there uses the other one.
    rule("clone3", refuse(errno.ENOSYS))
    requests = (*_TERMINAL, *_OWNERS_BY_IOCTL, *_ATTRIBUTES)
    rule("ioctl", ALLOW, *[Clause(1, request, _NOT_PERMITTED) for request in requests])
    rule("fcntl", ALLOW, *[Clause(1, command, _NOT_PERMITTED) for command in (*_OWNERS_BY_FCNTL, *_LEASES)])
    return assemble(machine.audit, machine.foreign_bit, LAST, rules)
