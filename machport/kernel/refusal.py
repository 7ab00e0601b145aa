"""The one exception of the kernel: a call that is refused, with the rule that refuses it."""

from __future__ import annotations


class Refusal(Exception):
    """A call fails with a return code.  Nothing has changed, except what the rule itself says is consumed.

    Attributes:
        code: ``kern_return_t`` or ``mach_msg_return_t``.
        rule: number in the specification, such as ``"P33"``.
        says: what was wrong, for a person; may be "".
    """

    def __init__(self, code: int, rule: str, says: str = "") -> None:
        super().__init__(code, rule, says)
        self.code = code
        self.rule = rule
        self.says = says
