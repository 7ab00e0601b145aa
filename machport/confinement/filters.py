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
#: Requests of ``ioctl`` that pass.  Some of the others change a file which may only be read, write into the input of a
#: terminal, or have the system signal whomever one likes.  File systems and drivers have their own, so a list of those
#: to refuse is never complete.
_REQUESTS: Final = (
    0x5401,  # TCGETS, and what sets the same: TCSETS, TCSETSW, TCSETSF
    0x5402,
    0x5403,
    0x5404,
    0x802C542A,  # TCGETS2, and what sets the same
    0x402C542B,
    0x402C542C,
    0x402C542D,
    0x5409,  # TCSBRK
    0x540A,  # TCXONC
    0x540B,  # TCFLSH
    0x540F,  # TIOCGPGRP
    0x5411,  # TIOCOUTQ
    0x5413,  # TIOCGWINSZ
    0x5429,  # TIOCGSID
    0x541B,  # FIONREAD
    0x5421,  # FIONBIO
    0x5450,  # FIONCLEX
    0x5451,  # FIOCLEX
    0x40049409,  # FICLONE, with which files are copied: writes only what is open to be written
    0xC040FF0B,  # PIDFD_GET_INFO, as ``machport.peer.death`` asks
)
#: And of sockets: SIOCGIFNAME, SIOCGIFINDEX.
_REQUESTS_OF_NETWORK: Final = (0x8910, 0x8933)
#: Commands that let the system send signals to whomever one likes.
_OWNERS: Final = (8, 15)
#: Commands that hold up who opens a file.
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
    # Not ENOTTY, which says that a file is of another kind: nobody shall take a refusal for that.
    requests = (*_REQUESTS, *_REQUESTS_OF_NETWORK) if network else _REQUESTS
    rule("ioctl", _NOT_PERMITTED, *[Clause(1, request, ALLOW) for request in requests])
    rule("fcntl", ALLOW, *[Clause(1, command, _NOT_PERMITTED) for command in (*_OWNERS, *_LEASES)])
    return assemble(machine.audit, machine.foreign_bit, LAST, rules)
