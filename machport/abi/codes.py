"""Names of return codes: what a person reads instead of a number."""

from __future__ import annotations

from typing import Final

from machport.abi import constants

#: Families in the order in which a clash of numbers is settled: a plain 0 is KERN_SUCCESS.
_FAMILIES: Final = ("KERN_", "MACH_SEND_", "MACH_RCV_", "MACH_MSG_SUCCESS", "MIG_", "BOOTSTRAP_", "kIOReturn")

#: Options of mach_msg share prefixes with its results; results have one of these two class bits.
_MSG_RESULT: Final = 0x10000000


def _is_code(name: str, value: object) -> bool:
    if not isinstance(value, int) or name == "BOOTSTRAP_MAX_NAME_LEN":
        return False
    if name.startswith(("MACH_SEND_", "MACH_RCV_")):
        return value & 0xF0000000 == _MSG_RESULT
    return name.startswith(_FAMILIES)


#: Every return code by its name, and the name of every return code.
CODES: Final[dict[str, int]] = {n: v for n, v in vars(constants).items() if _is_code(n, v)}
NAMES: Final[dict[int, str]] = {}
for _family in _FAMILIES:
    for _name, _value in CODES.items():
        if _name.startswith(_family):
            NAMES.setdefault(_value, _name)


def code_name(code: int) -> str:
    """The manual's name of a return code; extra shortage bits of ``mach_msg`` follow after ``|``."""
    if code in NAMES:
        return NAMES[code]
    bits = code & constants.MACH_MSG_MASK
    if code & _MSG_RESULT and bits and code & ~bits in NAMES:
        shortages = [
            name
            for name in (
                "MACH_MSG_IPC_SPACE",
                "MACH_MSG_VM_SPACE",
                "MACH_MSG_IPC_KERNEL",
                "MACH_MSG_VM_KERNEL",
            )
            if bits & getattr(constants, name)
        ]
        return "|".join([NAMES[code & ~bits], *shortages])
    return f"{code:#x}"
