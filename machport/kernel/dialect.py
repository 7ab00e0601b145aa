"""Where the documents and real kernels differ: named switches, each with its rule.

``MANUAL`` follows the documents and is the default.  ``GNUMACH`` follows GNU Mach to the order of its notifications.
A switch is True, or has GNU Mach's value, where that kernel departs from the adopted rule.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final


@dataclass(frozen=True, slots=True)
class Dialect:
    """A set of switches.  Each field's comment names the entry of the specification's tables of differences."""

    #: D7, F8: when a pd request saves a port, the send right under the same name turns into a dead name, and the
    #: port goes on counting it.
    saved_port_deadens_send: bool = False
    #: D8, F6: a no-senders request stays registered when the receive right moves.
    no_senders_stays_on_move: bool = False
    #: D9: dead-name requests of a port fire in the order of slots of a table that grows by doubling.
    request_slots: bool = False
    #: D11: the highest queue limit.
    qlimit_max: int = 1024
    #: Section 5.1 of ports: the first number that is not a right, also for an entry that does not exist.
    right_number: int = 6
    #: E2: a full queue is noticed before a circular right is.
    full_before_circular: bool = False
    #: E5, E6: messages have typed items and no trailer; matters for what is too large to receive.
    typed_messages: bool = False
    #: F1, F2, P16: a right that a call carries is copied in and destroyed as part of a message, so its failures are
    #: those of ``mach_msg``, and what its destruction sets free comes in the order of a destroyed message.
    calls_are_messages: bool = False
    #: N66: send-possible notifications do not exist.
    no_send_possible: bool = False

    def switches(self) -> list[str]:
        """Names of the switches in which this dialect differs from the manual's."""
        return [field.name for field in fields(self) if getattr(self, field.name) != field.default]


MANUAL: Final = Dialect()
GNUMACH: Final = Dialect(
    saved_port_deadens_send=True,
    no_senders_stays_on_move=True,
    request_slots=True,
    qlimit_max=16,
    right_number=5,
    full_before_circular=True,
    typed_messages=True,
    calls_are_messages=True,
    no_send_possible=True,
)
DIALECTS: Final = {"manual": MANUAL, "gnumach": GNUMACH}
