"""How long a side looks at its ring before it sleeps."""

from __future__ import annotations

import os
from typing import Final

from machport.abi.errors import InvalidArgument

#: Environment variable: microseconds of looking, 0 for none.
VARIABLE: Final = "MACHPORT_SPIN_US"
#: Longer than the answer of somebody who is awake takes, and not much longer than it takes to wake one who sleeps.
DEFAULT_US: Final = 80
MAX_US: Final = 1_000_000
#: Budgets that a wait lasts as a rule between two who talk to each other, sleep and wake-ups included.
_CONVERSATION: Final = 20
#: Nanoseconds that are looked for even after waits that turned out long.
_LEAST_NS: Final = 2_000


def spin_ns() -> int:
    """Nanoseconds to look before sleeping, as the environment has it.

    Raises:
        InvalidArgument: the variable is set to something else than a number of microseconds.
    """
    text = os.environ.get(VARIABLE, "")
    try:
        microseconds = float(text) if text else DEFAULT_US
    except ValueError:
        microseconds = -1.0
    if not 0 <= microseconds <= MAX_US:
        raise InvalidArgument(f"{VARIABLE} is {text!r}; it takes microseconds, 0 to {MAX_US}")
    return int(microseconds * 1000)


def after_sleep(budget_ns: int, most_ns: int, waited_ns: int) -> int:
    """What to look for next time, when looking for ``budget_ns`` was in vain and the wait took ``waited_ns`` in all.

    Waits of a conversation that goes on leave it full, even those that it did not cover: a few wake-ups, each of which
    takes as long as a budget, make one wait, and if all sides looked for less then, they would never again be awake
    together.  Longer waits halve it, so that who waits long looks little.
    """
    if waited_ns <= _CONVERSATION * most_ns:
        return most_ns
    return min(most_ns, max(budget_ns // 2, _LEAST_NS))
