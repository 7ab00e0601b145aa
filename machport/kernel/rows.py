"""The rows of a snapshot: what each class of the kernel is as plain data.

For ``saving`` and ``restoring``, which have a function each for every row.  Knows names of fields and flags only.
"""

from __future__ import annotations

from typing import Any, Final

#: Plain data.
State = Any
#: How each class is carried over: fields in its own row, fields in the row of what it belongs to, and fields that
#: follow from others.  One that is nowhere would be lost, which a test does not allow.
FIELDS: Final[dict[str, tuple[str, str, str]]] = {
    "Kernel": (
        "dialect name_limit tasks tasks_made counts",
        "",
        "losses notices typed_messages calls_are_messages space ending garbage woken changed released"
        " slice unfinished relieved possible exceeded",
    ),
    "Task": ("label number tokens port special registered space waiters", "", ""),
    "Space": ("", "active limit quota entries names", "task by_port maker lent"),
    "Quota": (
        "messages_max bytes_max sending_max waiters_max",
        "",
        "holder messages bytes sending busy waiting relieved is_relieved exceeded noted",
    ),
    "Excess": ("", "", "count holder limit port use what"),
    "Termination": ("", "", "names task"),
    "GenerationNames": ("", "generations free", ""),
    "FreshNames": ("", "last", ""),
    "Entry": ("", "name type urefs port request died pset", ""),
    "PortSet": ("", "members order receivers", "name active _compact_at"),
    "Ticket": ("", "", "port"),
    "Port": (
        "active guarded strict unreceived srights sorights mscount qlimit seqno context label kobject last_holder"
        " lost_with ns_request pd_request first requests senders receivers quota",
        "",
        "receiver name destination last msgcount bytes pset ticket",
    ),
    "RequestTable": ("", "slots next armed", ""),
    "SlottedRequestTable": ("", "size free", ""),
    "Request": ("", "name notify send_possible", "entry"),
    "Message": (
        "remote_type local local_type id inline items voucher tokens circular asks returned seqno",
        "",
        "remote next weight serial",
    ),
    "Item": ("descriptor type ports memory", "", ""),
    "Waiter": (
        "option rcv_limit rcv_name timeout_ms",
        "message",
        "task phase line before after changed source woken_code result owner",
    ),
    "Line": ("", "first", "last"),
    "Counts": ("sent sent_bytes received received_bytes notified", "", "ports queued"),
    #: What was lost with a task is told before the kernel is saved, as what it released is.
    "LossesByTask": ("", "", "_of"),
    "Losses": ("", "", "ports returned send_rights send_once_rights messages bytes caused notes"),
    "Note": ("", "", "kind port name task label"),
    "Result": ("code head inline tail memory rule taken received port", "", "serial"),
}

#: In the place of a port's number: no port, and ``port.DEAD``.
NO_PORT: Final = -1
DEAD_PORT: Final = -2
#: In the place of a task's number: none.
NO_TASK: Final = -1
#: Flags of a port.
ACTIVE: Final = 1
GUARDED: Final = 2
STRICT: Final = 4
UNRECEIVED: Final = 8
KERNELS: Final = 16
#: Flags of a message.
CIRCULAR: Final = 1
ASKS: Final = 2
RETURNED: Final = 4
#: Kinds of name pickers.
GENERATIONS: Final = 0
FRESH: Final = 1


class SnapshotError(ValueError):
    """This is not the state of a kernel; or a kernel is to be saved that has something under way."""
