"""The bootstrap service: a task of the daemon's own that turns names into send rights.

It is served like any other: by messages to its port, of which every task of the user has a send right unless its
parent gave it none.  A service whose port has died is forgotten, by its dead-name notification.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from machport.abi import constants as c
from machport.abi import message as layout
from machport.abi.bootstrap import CHECK_IN, LOOK_UP, REGISTER, REPLY_OFFSET, unpack_name
from machport.abi.message import Descriptor, Parsed
from machport.kernel import messages, ports, requests, tasks
from machport.kernel.kernel import Kernel
from machport.kernel.port import Port
from machport.kernel.refusal import Refusal
from machport.kernel.waiter import Result, Waiter
from machport.server.snapshot import Restoring, Saving, State

_RECEIVE: Final = c.MACH_RCV_MSG
_BUFFER: Final = 4096
#: Where the tokens of a message have the number and the version of the sender's process.
_PID: Final = 7
_VERSION: Final = 9
#: Rights in a reply that stay with the sender if it fails: a copied send right does not.
_MOVED: Final = (c.MACH_MSG_TYPE_MOVE_RECEIVE, c.MACH_MSG_TYPE_MOVE_SEND)
_Process = tuple[int, int]


class Bootstrap:
    """Names of services, and the task that holds send rights to them.

    Attributes:
        names_max, process_max: how many there may be, and how many that one process has asked for.  A message tells of
            its sender's process (M35), which as a rule has one task.
    """

    def __init__(self, kernel: Kernel, names_max: int = 65536, process_max: int = 4096) -> None:
        self.names_max, self.process_max = names_max, process_max
        self.kernel = kernel
        self.task = tasks.create_task(kernel, "bootstrap")
        self.service = ports.mach_port_allocate(kernel, self.task, c.MACH_PORT_RIGHT_RECEIVE)
        self.names: dict[str, int] = {}
        self._names_of: dict[int, set[str]] = {}
        #: By which process each name was taken, and how many by each: the number of a process, and its version.
        self._takers: dict[str, _Process] = {}
        self._taken: Counter[_Process] = Counter()
        ports.mach_port_insert_right(
            kernel, self.task, self.task, self.service, self.service, c.MACH_MSG_TYPE_MAKE_SEND
        )
        self.waiter = self._receive()

    @property
    def port(self) -> Port:
        """The port that tasks get a send right to."""
        entry = self.task.space.lookup(self.service)
        assert entry is not None and entry.port is not None
        return entry.port

    def state(self, saving: Saving) -> State:
        """The names, and what serves them, for ``resumed``."""
        return [saving.task(self.task), self.service, saving.waiter(self.waiter), self.names, self._takers]

    @classmethod
    def resumed(
        cls, kernel: Kernel, state: State, restoring: Restoring, names_max: int = 65536, process_max: int = 4096
    ) -> Bootstrap:
        """The service of a daemon whose place is taken."""
        bootstrap = cls.__new__(cls)
        bootstrap.names_max, bootstrap.process_max = names_max, process_max
        bootstrap.kernel = kernel
        # The first daemons did not say who had taken the names.
        task, bootstrap.service, waiter, bootstrap.names, *takers = state
        bootstrap._takers = {name: (pid, version) for name, (pid, version) in takers[0].items()} if takers else {}
        bootstrap._taken = Counter(bootstrap._takers.values())
        bootstrap.task = restoring.task(task)
        bootstrap.waiter = restoring.waiter(waiter)
        bootstrap.waiter.owner = bootstrap
        bootstrap._names_of = {}
        for name, port in bootstrap.names.items():
            bootstrap._names_of.setdefault(port, set()).add(name)
        return bootstrap

    def _receive(self) -> Waiter:
        waiter = messages.mach_msg(self.kernel, self.task, _RECEIVE, rcv_limit=_BUFFER, rcv_name=self.service)
        waiter.owner = self
        return waiter

    def serve(self) -> None:
        """Answer every message that has come, and wait for the next."""
        while self.waiter.result is not None:
            result = self.waiter.result
            try:
                self._take(result)
            finally:
                # A fault of ours costs one request, and not the service.
                self.waiter = self._receive()

    def _take(self, result: Result) -> None:
        if result.buffer is not None:
            size = layout.HEADER.unpack_from(result.buffer)[1]
            message = layout.parse(result.buffer[:size])
            # Only the kernel has send-once rights to this port: what comes by one is a notification (N62).
            if message.local_disposition != c.MACH_MSG_TYPE_PORT_SEND_ONCE:
                # Of what was too large only the header has come.
                tokens = None if result.received is None else result.received.tokens
                sender = (0, 0) if tokens is None else (tokens[_PID], tokens[_VERSION])
                self._answer(message, layout.body_rights(message, result.memory), sender)
            elif message.id == c.MACH_NOTIFY_DEAD_NAME:
                self._forget(int.from_bytes(message.inline[8:12], "little"))

    def _answer(self, request: Parsed, rights: list[tuple[int, int]], sender: _Process) -> None:
        code, answer = c.MIG_BAD_ID, list[Descriptor]()
        try:
            if request.id == LOOK_UP:
                answer.append(self._look_up(unpack_name(request.inline)))
                code = c.BOOTSTRAP_SUCCESS
            elif request.id == CHECK_IN:
                answer.append(self._check_in(unpack_name(request.inline), sender))
                code = c.BOOTSTRAP_SUCCESS
            elif request.id == REGISTER:
                self._register(unpack_name(request.inline), rights, sender)
                code, rights = c.BOOTSTRAP_SUCCESS, []
        except Refusal as refusal:
            code = refusal.code
        self._drop(rights)
        self._reply(request, code, answer)

    def _look_up(self, name: str) -> Descriptor:
        if name not in self.names:
            raise Refusal(c.BOOTSTRAP_UNKNOWN_SERVICE, "bootstrap_look_up")
        return layout.port_descriptor(self.names[name], c.MACH_MSG_TYPE_COPY_SEND)

    def _check_in(self, name: str, sender: _Process) -> Descriptor:
        if name in self.names:
            raise Refusal(c.BOOTSTRAP_SERVICE_ACTIVE, "bootstrap_check_in")
        self._check_room("bootstrap_check_in", sender)
        port = ports.mach_port_construct(self.kernel, self.task, c.MPO_INSERT_SEND_RIGHT, 0, 0)
        self._remember(name, port, sender)
        return layout.port_descriptor(port, c.MACH_MSG_TYPE_MOVE_RECEIVE)

    def _register(self, name: str, rights: list[tuple[int, int]], sender: _Process) -> None:
        if len(rights) != 1 or rights[0][1] != c.MACH_MSG_TYPE_PORT_SEND:
            raise Refusal(c.KERN_INVALID_CAPABILITY, "bootstrap_register")
        if name in self.names:
            raise Refusal(c.BOOTSTRAP_NAME_IN_USE, "bootstrap_register")
        self._check_room("bootstrap_register", sender)
        self._remember(name, rights[0][0], sender)

    def _check_room(self, call: str, sender: _Process) -> None:
        if self._taken[sender] >= self.process_max:
            says = f"process {sender[0]} has {self.process_max} services, as many as one process may have"
            raise Refusal(c.BOOTSTRAP_NO_MEMORY, call, says)
        if len(self.names) >= self.names_max:
            raise Refusal(c.BOOTSTRAP_NO_MEMORY, call, f"there are {self.names_max} services, as many as there may be")

    def _remember(self, name: str, port: int, sender: _Process) -> None:
        previous = requests.mach_port_request_notification(
            self.kernel,
            self.task,
            self.task,
            port,
            c.MACH_NOTIFY_DEAD_NAME,
            1,
            self.service,
            c.MACH_MSG_TYPE_MAKE_SEND_ONCE,
        )
        self.names[name] = port
        self._names_of.setdefault(port, set()).add(name)
        self._takers[name] = sender
        self._taken[sender] += 1
        if previous:
            self._drop([(previous, c.MACH_MSG_TYPE_PORT_SEND_ONCE)])

    def _forget(self, port: int) -> None:
        """A service died: its names go, and the dead name with all its references."""
        for name in self._names_of.pop(port, ()):
            del self.names[name]
            taker = self._takers.pop(name, None)
            if taker is not None:
                self._taken[taker] -= 1
                if not self._taken[taker]:
                    del self._taken[taker]
        ports.mach_port_destroy(self.kernel, self.task, port)

    def _drop(self, rights: list[tuple[int, int]]) -> None:
        for name, kind in rights:
            if kind == c.MACH_MSG_TYPE_PORT_RECEIVE:
                ports.mach_port_mod_refs(self.kernel, self.task, name, c.MACH_PORT_RIGHT_RECEIVE, -1)
            else:
                ports.mach_port_deallocate(self.kernel, self.task, name)

    def _reply(self, request: Parsed, code: int, answer: list[Descriptor]) -> None:
        if request.remote in (c.MACH_PORT_NULL, c.MACH_PORT_DEAD):
            self._drop([(d.name, d.disposition) for d in answer if d.disposition in _MOVED])
            return
        reply = layout.pack(
            layout.bits(request.remote_disposition),
            request.remote,
            id=request.id + REPLY_OFFSET & 0xFFFFFFFF,
            descriptors=answer,
            inline=layout.NDR + (code & 0xFFFFFFFF).to_bytes(4, "little"),
        )
        sent = messages.mach_msg(self.kernel, self.task, c.MACH_SEND_MSG | c.MACH_SEND_TIMEOUT, reply).result
        assert sent is not None
        if sent.code:
            # The reply port died or is full: whatever is left of the reply is not ours to keep.
            back = layout.parse(sent.buffer if sent.buffer is not None else reply)
            moved = [(d.name, d.disposition) for d in back.descriptors if d.disposition in _MOVED]
            self._drop([(back.remote, back.remote_disposition), *moved])
