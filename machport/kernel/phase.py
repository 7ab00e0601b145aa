"""What a waiter waits for."""

from __future__ import annotations

from typing import Final

#: Nothing: the call is done.
DONE: Final = 0
#: Room in a full queue.
SEND: Final = 1
#: A message.
RECEIVE: Final = 2
