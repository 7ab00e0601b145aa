"""Who may do what to the daemon, and to tasks of others.

A task that another one made has the rights that it was given, and no say in anything else: it may be there because
its program is not trusted.  A task that its process joined by itself is the user's own.
"""

from __future__ import annotations

from machport.abi import constants as c
from machport.kernel.refusal import Refusal
from machport.server.connection import Client


def check_oversight(client: Client, call: str) -> None:
    """Let only the user's own tasks look over the daemon's shoulder, or tell it what to do.

    Raises:
        Refusal: KERN_NO_ACCESS, the task was made by another one.
    """
    if client.was_made:
        raise Refusal(
            c.KERN_NO_ACCESS, call, "only tasks that joined by themselves may do this, and another made this one"
        )
