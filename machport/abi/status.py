"""``mach_port_status_t``: the words of MACH_PORT_RECEIVE_STATUS, in their order (P18)."""

from __future__ import annotations

from typing import NamedTuple


class PortStatus(NamedTuple):
    """The state of a port as its receiver may see it.

    Attributes:
        pset: name of the port set it is in, or 0.
        seqno: number of the next message.
        mscount: make-send count.
        qlimit: messages that may wait before senders do.
        msgcount: messages that wait.
        sorights: number of send-once rights.
        srights: 1 if there is a send right, else 0.
        pdrequest, nsrequest: 1 if a port-destroyed or no-senders request is registered, else 0.
        flags: 0x02 guarded, 0x04 strictly.
    """

    pset: int
    seqno: int
    mscount: int
    qlimit: int
    msgcount: int
    sorights: int
    srights: int
    pdrequest: int
    nsrequest: int
    flags: int
