"""Messages of the bootstrap service: a name of up to 127 bytes, a port, a return code.

A request has an NDR record and the name, closed by a zero and padded; a reply an NDR record and the code.  Rights are
port descriptors.  Ids are those of the routines in their interface; a reply's id is the request's plus 100.
"""

from __future__ import annotations

from typing import Final

from machport.abi.constants import BOOTSTRAP_MAX_NAME_LEN, KERN_INVALID_ARGUMENT
from machport.abi.errors import InvalidArgument
from machport.abi.message import NDR

CHECK_IN: Final = 402
REGISTER: Final = 403
LOOK_UP: Final = 404
REPLY_OFFSET: Final = 100


def pack_name(name: str) -> bytes:
    """The inline data of a request.

    Raises:
        InvalidArgument: the name is empty, too long, or has a zero in it.
    """
    data = name.encode()
    if not 0 < len(data) < BOOTSTRAP_MAX_NAME_LEN or b"\0" in data:
        raise InvalidArgument(
            f"a service name has 1 to {BOOTSTRAP_MAX_NAME_LEN - 1} bytes, none of them 0; {name!r} is not one",
            code=KERN_INVALID_ARGUMENT,
        )
    return NDR + data.ljust(BOOTSTRAP_MAX_NAME_LEN, b"\0")


def unpack_name(inline: bytes) -> str:
    """The name in a request, whatever its bytes are."""
    return inline[len(NDR) :][:BOOTSTRAP_MAX_NAME_LEN].split(b"\0")[0].decode(errors="replace")
