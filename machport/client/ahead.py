"""Join a daemon for the program that this process is about to become, which may not be able to by itself."""

from __future__ import annotations

import os

from machport.abi import traps as t
from machport.abi.errors import error_for
from machport.carrier.hello import Hello
from machport.client.connection import Control, connect
from machport.client.inheritance import Inheritance


def join_ahead(inheritance: Inheritance) -> Inheritance:
    """Claim the task of an inheritance; the same with the connection, which the next program inherits.

    Raises:
        DaemonUnavailable: no daemon can be reached.
        InvalidRight: the task is gone.
    """
    sock = connect(inheritance.path, start=False, chosen=True)
    control = Control(sock)
    answer = control.greet(Hello(inheritance.label, inheritance.ticket).pack(), inheritance.path)
    if t.number_of(answer):
        rule, says = t.unpack_refusal(answer)
        raise error_for(t.number_of(answer), says, call="hello", task=inheritance.label, rule=rule)
    descriptor = os.dup(sock.fileno())
    os.set_inheritable(descriptor, True)
    connection = descriptor, os.fstat(descriptor).st_ino
    return inheritance._replace(label=answer[4:].decode(errors="replace"), connection=connection)
