"""Every number of machport.abi against the specification's table, of which ``constants.toml`` is a copy."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Final

import pytest

from machport.abi import constants, message
from machport.kernel.dialect import GNUMACH, MANUAL

TABLE: Final[dict[str, dict[str, Any]]] = {
    name: table
    for name, table in tomllib.loads((Path(__file__).parent / "constants.toml").read_text()).items()
    if isinstance(table, dict)
}

#: Where a constant has a longer name than its line in the table.
LONGER: Final = {
    "port_name": {"INDEX_SHIFT": "PORT_NAME_INDEX_SHIFT", "GEN_FIRST": "PORT_NAME_GEN_FIRST"}
    | {"GEN_STEP": "PORT_NAME_GEN_STEP"},
    "rcv_trailer": {
        "TYPE_SHIFT": "MACH_RCV_TRAILER_TYPE_SHIFT",
        "ELEMENTS_SHIFT": "MACH_RCV_TRAILER_ELEMENTS_SHIFT",
        "FIELD_MASK": "MACH_RCV_TRAILER_FIELD_MASK",
    },
}
#: Tables that are not about names in ``constants``: layouts are compared below, queues in their own room.
ELSEWHERE: Final = {
    "msg_size",
    "ndr",
    "notify_msgh_size",
    "notify_offset",
    "mig_msgh_id",
    "data_queue",
    "gnu_mach",
}
PLAIN: Final = [(table, name) for table, numbers in TABLE.items() if table not in ELSEWHERE for name in numbers]
#: Numbers of the table that nothing here needs.
UNUSED: Final = {
    "GEN_REQUIRED_LOW_BITS",
    "IE_BITS_UREFS_MASK",
    "IE_BITS_TYPE_MASK",
    "MACH_SEND_OVERRIDE",
    "MACH_MSG_STRICT_REPLY",
    "MACH_RCV_VOUCHER",
    "MACH_RCV_GUARDED_DESC",
    "MACH_RCV_SYNC_WAIT",
    "MACH_RCV_SYNC_PEEK",
    "MACH_SEND_ALWAYS",
    "MACH_SEND_FILTER_NONFATAL",
    "MACH_SEND_TRAILER",
    "MACH_SEND_NOIMPORTANCE",
    "MACH_SEND_IMPORTANCE",
    "MACH_SEND_SYNC_OVERRIDE",
    "MACH_SEND_PROPAGATE_QOS",
    "MACH_SEND_KERNEL",
    "MACH_SEND_SYNC_BOOTSTRAP_CHECKIN",
    "MACH_RCV_NOTIFY",
    "MACH_RCV_OVERWRITE",
}


def _as_constant(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@pytest.mark.parametrize(("table", "name"), PLAIN, ids=[f"{table}.{name}" for table, name in PLAIN])
def test_a_number_of_the_table(table: str, name: str) -> None:
    """Each has its constant with its value, or is known to be of no use."""
    constant = LONGER.get(table, {}).get(name, name)
    if name in UNUSED:
        assert not hasattr(constants, constant), f"{constant} is used now"
    else:
        assert getattr(constants, constant) == _as_constant(TABLE[table][name])


def test_every_constant_is_in_the_table() -> None:
    """No number without a source."""
    names = {LONGER.get(table, {}).get(name, name) for table, name in PLAIN}
    ours = {name for name in vars(constants) if name[0] not in "_@" and name not in ("Final", "annotations")}
    assert ours <= names


def test_sizes_of_messages() -> None:
    sizes = TABLE["msg_size"]
    assert sizes["HEADER"] == message.HEADER_SIZE == message.HEADER.size
    assert sizes["BODY_COUNT"] == message.COUNT.size == message.BODY_SIZE - message.HEADER_SIZE
    assert sizes["PORT_DESCRIPTOR"] == message.PORT_DESCRIPTOR.size
    assert sizes["OOL_DESCRIPTOR_64"] == sizes["OOL_PORTS_DESCRIPTOR_64"] == message.MEMORY_DESCRIPTOR.size
    assert sizes["NDR_RECORD"] == len(message.NDR)
    assert sizes["MAX_BODY_64"] == message.MAX_SIZE
    assert sizes["MAX_PORTS_PER_MESSAGE"] == message.MAX_PORTS


def test_sizes_of_trailers() -> None:
    sizes, elements = TABLE["msg_size"], TABLE["rcv_trailer"]
    assert sizes["TRAILER_NULL"] == message.MIN_TRAILER
    assert {
        elements["MACH_RCV_TRAILER_NULL"]: sizes["TRAILER_NULL"],
        elements["MACH_RCV_TRAILER_SEQNO"]: sizes["TRAILER_SEQNO"],
        elements["MACH_RCV_TRAILER_SENDER"]: sizes["TRAILER_SENDER"],
        elements["MACH_RCV_TRAILER_AUDIT"]: sizes["TRAILER_AUDIT"],
        elements["MACH_RCV_TRAILER_CTX"]: sizes["TRAILER_CTX_64"],
        elements["MACH_RCV_TRAILER_AV"]: sizes["TRAILER_AV_64"],
    } == message.TRAILER_SIZES


def test_the_ndr_record() -> None:
    assert bytes(TABLE["ndr"].values()) == message.NDR
    assert list(TABLE["ndr"]).index("int_rep") == 4


def test_the_tokens_of_the_kernel() -> None:
    table = TABLE["rcv_trailer"]
    assert (*table["KERNEL_SECURITY_TOKEN"], *table["KERNEL_AUDIT_TOKEN"]) == message.KERNEL_TOKENS


def test_the_payload_of_notifications() -> None:
    offsets, sizes = TABLE["notify_offset"], TABLE["notify_msgh_size"]
    assert offsets["NOT_PORT"] == offsets["NOT_COUNT"] == message.NOTIFICATION_PAYLOAD
    assert offsets["NDR"] == message.HEADER_SIZE
    assert offsets["PD_DESCRIPTOR"] == message.BODY_SIZE
    assert sizes["SEND_ONCE"] == message.HEADER_SIZE
    assert sizes["PORT_DESTROYED"] == message.BODY_SIZE + message.PORT_DESCRIPTOR.size
    for kind in ("PORT_DELETED", "SEND_POSSIBLE", "NO_SENDERS", "DEAD_NAME"):
        assert sizes[kind] == message.NOTIFICATION_PAYLOAD + 4


def test_the_numbers_of_the_dialects() -> None:
    """Where GNU Mach has another value for the same name."""
    table = TABLE["gnu_mach"]
    assert (GNUMACH.qlimit_max, GNUMACH.right_number) == (
        table["MACH_PORT_QLIMIT_MAX"],
        table["MACH_PORT_RIGHT_NUMBER"],
    )
    assert (MANUAL.qlimit_max, MANUAL.right_number) == (
        constants.MACH_PORT_QLIMIT_MAX,
        constants.MACH_PORT_RIGHT_NUMBER,
    )
