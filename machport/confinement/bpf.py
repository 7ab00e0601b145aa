"""An assembler for the programs that look at system calls: rules in, instructions out.

A rule belongs to one call.  Its clauses are tried in order; the first that holds decides, and otherwise ``otherwise``
does.  A call without a rule is allowed.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

_INSTRUCTION: Final = struct.Struct("=HBBI")
#: Load a word of the call's description, keep some of its bits, compare, end.
_LOAD, _AND, _EQUAL, _ABOVE, _ANY, _RETURN = 0x20, 0x54, 0x15, 0x25, 0x45, 0x06
#: In the description: the call's number, the interface that it came by, and six arguments of two words.
_NUMBER_AT: Final = 0
_INTERFACE_AT: Final = 4
_ARGUMENTS_AT: Final = 16

#: Let it pass.
ALLOW: Final = 0x7FFF0000
_REFUSE: Final = 0x00050000


def refuse(error: int) -> int:
    """The outcome of a call that fails with an errno."""
    return _REFUSE | error


class Clause(NamedTuple):
    """If the lower word of an argument, masked, is ``value``, or has ``any_bit`` of it, the call has ``outcome``."""

    argument: int
    value: int
    outcome: int
    mask: int = 0xFFFFFFFF
    any_bit: bool = False

    def assemble(self) -> bytes:
        code = _instruction(_LOAD, _ARGUMENTS_AT + 8 * self.argument)
        if self.mask != 0xFFFFFFFF:
            code += _instruction(_AND, self.mask)
        test = _ANY if self.any_bit else _EQUAL
        return code + _instruction(test, self.value, 0, 1) + _instruction(_RETURN, self.outcome)


class Rule(NamedTuple):
    """What becomes of one call, by its number."""

    number: int
    otherwise: int
    clauses: Sequence[Clause] = ()

    def assemble(self) -> bytes:
        body = b"".join(clause.assemble() for clause in self.clauses) + _instruction(_RETURN, self.otherwise)
        return _instruction(_EQUAL, self.number, 0, len(body) // _INSTRUCTION.size) + body


def assemble(interface: int, foreign_bit: int, last: int, rules: Iterable[Rule]) -> bytes:
    """The program: calls of another interface are refused, and those after ``last`` are as if they were not there.

    Args:
        interface: the architecture, as the system numbers it.
        foreign_bit: set in numbers of another interface; 0 if there is none.
    """
    missing = _instruction(_RETURN, refuse(errno.ENOSYS))
    code = _instruction(_LOAD, _INTERFACE_AT)
    code += _instruction(_EQUAL, interface, 1, 0) + _instruction(_RETURN, refuse(errno.EPERM))
    code += _instruction(_LOAD, _NUMBER_AT)
    if foreign_bit:
        code += _instruction(_ANY, foreign_bit, 0, 1) + missing
    code += _instruction(_ABOVE, last, 0, 1) + missing
    return code + b"".join(rule.assemble() for rule in rules) + _instruction(_RETURN, ALLOW)


def length(program: bytes) -> int:
    """Its number of instructions."""
    return len(program) // _INSTRUCTION.size


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return _INSTRUCTION.pack(code, if_true, if_false, value)
