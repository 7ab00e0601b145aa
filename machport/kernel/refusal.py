"""The one exception of the kernel: a call that is refused, with the rule that refuses it."""

from __future__ import annotations


class Refusal(Exception):
    """A call fails with a return code.  Nothing has changed, except what the rule itself says is consumed.

    Attributes:
        code: ``kern_return_t`` or ``mach_msg_return_t``.
        rule: number in the specification, such as ``"P33"``.
        says: what was wrong, for a person; may be "".
        taken: descriptors of a message whose content was taken, and destroyed, before the one that failed (M8).
    """

    def __init__(self, code: int, rule: str, says: str = "", taken: int = 0) -> None:
        super().__init__(code, rule, says)
        self.code = code
        self.rule = rule
        self.says = says
        self.taken = taken
