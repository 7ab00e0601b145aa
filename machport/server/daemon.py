"""The daemon: one process and one loop around one kernel.

Connections begin and end here, and deaths, deadlines and sockets are waited for; traps are carried out by ``traps``.
A client that breaks the protocol, does not read, or dies costs its own connection.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Self

from machport.abi import constants as c
from machport.abi import traps as t
from machport.abi.errors import LimitReached, ProtocolError
from machport.carrier import hello, rings
from machport.kernel import ports, tasks
from machport.kernel.copyout import take_back
from machport.kernel.kernel import Kernel
from machport.kernel.refusal import Refusal
from machport.kernel.task import Task
from machport.kernel.waiter import Result
from machport.peer.attestation import Peer, attest
from machport.server import endings
from machport.server.access import check_oversight
from machport.server.admission import Admission
from machport.server.bootstrap import Bootstrap
from machport.server.children import Children
from machport.server.closer import Closer
from machport.server.connection import Channel, Client, client_of
from machport.server.deaths import Deaths
from machport.server.descriptors import Spare, raise_limit
from machport.server.dispatch import Answer, OpenFile
from machport.server.door import Door
from machport.server.handover import (
    resume_channel,
    resume_client,
    resume_peer,
    save_channel,
    save_client,
    save_peer,
)
from machport.server.limits import Limiter
from machport.server.lock import Place
from machport.server.log import event
from machport.server.obituaries import Obituaries
from machport.server.own_calls import OwnCalls
from machport.server.reporting import Reports
from machport.server.settings import Settings
from machport.server.shortage import Shortage
from machport.server.snapshot import Part, Restoring, Saving, State, unpack
from machport.server.task_ports import TaskPorts
from machport.server.traces import Traces
from machport.server.traps import OwnCall, Traps
from machport.server.upgrade import Upgrades

_log: Final = logging.getLogger("machport.daemon")
_READ: Final = select.EPOLLIN
_WRITE: Final = select.EPOLLOUT
#: Descriptors that connections and files of clients may not use up: for long messages and answers on their way.
_DESCRIPTOR_RESERVE: Final = 64
#: Entries, messages and the like that end in one go; an end with more of them is made in moments of so many seconds,
#: and in so many steps between two looks at the clock, while others are served.
_AT_ONCE: Final = 256
_MOMENT: Final = 0.0001
_STEPS: Final = 8
#: Sockets and the like that are looked at before rings are again: a connection that comes or ends is work.
_EVENTS: Final = 2
#: Seconds after which the loop looks at its deadlines in any case: epoll does not count to a trap's longest timeout.
_LONGEST_SLEEP: Final = 3600.0
#: Packets of a dead process that are still carried out.
_LAST_PACKETS: Final = 64
_DEFAULTS: Final = Settings()
#: What is called with the events of a descriptor.
Callback = Callable[[int], object]


class Daemon:
    """A kernel, and the processes that call it.

    Args:
        listener: a listening SOCK_SEQPACKET socket, not blocking.
        place: where that is, and the lock by which no other daemon is there.
        settings: what whoever starts it has chosen.
        arguments: those of the command that a process is started with to take this one's place.
        begun: a kernel, and its service of names, that another process began; both new by default.

    Attributes:
        is_replaced: another process is the daemon, and this one shall end at once, without closing anything.
    """

    def __init__(
        self,
        listener: socket.socket,
        place: Place,
        settings: Settings = _DEFAULTS,
        *,
        arguments: Sequence[str] = (),
        begun: tuple[Kernel, Bootstrap] | None = None,
    ) -> None:
        if begun is None:
            kernel = Kernel()
            limits = settings.configuration.daemon
            begun = kernel, Bootstrap(kernel, limits.services, limits.services_per_process)
        self.kernel, self.bootstrap = begun
        self.kernel.slice = _AT_ONCE
        self.place = place
        self._settings = settings
        self.is_replaced = False
        self._listener = listener
        self._door = Door(listener, settings.configuration.daemon.connections_per_second)
        self._idle_since: float | None = time.monotonic()
        self._running = True
        self._clients: dict[Task, Client] = {}
        #: Tasks that ended and had done nothing but look at the others.
        self._onlookers: set[int] = set()
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callback] = {}
        self._register(listener, lambda _: self._accept())
        self._closer = Closer()
        self._deaths = Deaths(self._register, self._lay_to_rest)
        own_calls = self._own_calls()
        self.traps = Traps(self.kernel, self.bootstrap, own_calls, self._wait_writable, self._released)
        limit = raise_limit()
        self.traps.descriptor_limit = limit - min(_DESCRIPTOR_RESERVE, limit // 4)
        self._limiter = Limiter(self.kernel, settings.configuration, self.traps.descriptor_limit)
        self._admission = Admission(settings.configuration.daemon, self.traps.descriptor_limit)
        self._shortage = Shortage(settings.configuration.daemon.memory, self._limiter.accounts)
        self._obituaries = Obituaries(self._await_hang_up, self._unregister, limit)
        self._children = Children(
            self.kernel,
            self._obituaries,
            self._register,
            self._let_go,
            made=lambda task, maker: self._limiter.begin(task, task.label, maker),
        )
        self.traces = Traces(self.traps, self._children, self._clients, self._epoll, self._register, self._unregister)
        self._reports = Reports(self.kernel, self.traps, self._obituaries, self._clients, self.traces.numbers)
        self._calls = OwnCalls(
            self.kernel,
            self._clients,
            children=self._children,
            limiter=self._limiter,
            deaths=self._deaths,
            obituaries=self._obituaries,
            reports=self._reports,
            traces=self.traces,
            task_ports=TaskPorts(self.kernel, self._clients, settings.task_for_pid),
        )
        own_calls |= self._calls.by_number()
        self._spare = Spare()
        self._upgrades = Upgrades(arguments, self._register, self._unregister, self.save, self._answer)
        self._is_upgrade_asked = False
        #: What the process that takes this one's place gets beside kernel and clients; see ``snapshot``.
        self._parts: dict[str, Part] = {
            "children": self._children,
            "deaths": self._deaths,
            "obituaries": self._obituaries,
            # After the children, for which accounts are made.
            "limits": self._limiter,
            "reports": self._reports,
        }

    def run(self) -> None:
        """Serve until ``stop``, until another process has taken over, or until nobody was there for ``idle_exit``."""
        while self._running and not self.is_replaced:
            try:
                self._go_round()
            except MemoryError:
                # Whoever asked for too much is cut off where that is known; nobody else may pay for it.
                _log.error("the daemon has no memory left for something that it had to do", extra=event("no_memory"))

    def _go_round(self) -> None:
        busy = self.traps.look()
        self._settle()
        busy |= self._carry_on()
        self._reports.turns += 1
        self._reports.sleeps += not busy
        self.traces.flush()
        if self._reports.is_awaited:
            self._reports.tell(self._answer)
        ready = self._epoll.poll(0 if busy else self._time_to_sleep(), _EVENTS)
        for descriptor, events, callback in [(fd, events, self._callbacks[fd]) for fd, events in ready]:
            # What one event ends may have been ready, too, and its number be used again.
            if self._callbacks.get(descriptor) is callback:
                self._call_back(descriptor, callback, events)
        self.traps.expire()
        self._settle()
        if self._door.reopens():
            self._epoll.modify(self._listener, _READ)
        if self._idle_since is not None and self._settings.idle_exit is not None:
            self._running &= time.monotonic() < self._idle_since + self._settings.idle_exit
        self._turn_away(self._admission.overdue())
        self._shortage.look()
        if self.kernel.exceeded:
            self._limiter.report()
        self._look_for_upgrade()

    def _call_back(self, descriptor: int, callback: Callback, events: int) -> None:
        """Deal with an event.  A fault of ours costs whoever met it, and nobody else."""
        try:
            callback(events)
            self._settle()
        except MemoryError:
            raise
        except Exception:
            _log.exception("an event could not be dealt with", extra=event("event_fault", descriptor=descriptor))
            if descriptor != self._listener.fileno():
                self._unregister(descriptor)
                for client in self._clients.values():
                    for channel in client.channels:
                        if channel.sock.fileno() == descriptor:
                            # Whoever waits there for an answer is told that there will be none.
                            channel.shut()

    def _carry_on(self) -> bool:
        """Go on for a moment with ends that were too much for one go; whether there is more of them."""
        if not self.kernel.unfinished:
            return False
        end = time.monotonic() + _MOMENT
        while self.kernel.unfinished and time.monotonic() < end:
            tasks.carry_on(self.kernel, _STEPS)
            self._settle()
        return bool(self.kernel.unfinished)

    def _register(self, file: socket.socket | int, callback: Callback, events: int = _READ) -> bool:
        descriptor = file if isinstance(file, int) else file.fileno()
        try:
            self._epoll.register(descriptor, events)
        except OSError as error:
            _log.warning(
                "a descriptor cannot be watched: %s", error.strerror, extra=event("unwatchable", reason=error.strerror)
            )
            return False
        self._callbacks[descriptor] = callback
        return True

    def _await_hang_up(self, descriptor: int, callback: Callback) -> bool:
        return self._register(descriptor, callback, 0)

    def _unregister(self, file: socket.socket | int) -> None:
        """Stop watching a descriptor, if it is watched."""
        descriptor = file if isinstance(file, int) else file.fileno()
        if self._callbacks.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def stop(self) -> None:
        """Let ``run`` return after what it is doing."""
        self._running = False

    def stop_on(self, *signals: signal.Signals) -> None:
        """Stop when one of these signals arrives, also out of sleep."""
        wake_read, wake_write = socket.socketpair()
        wake_read.setblocking(False)
        wake_write.setblocking(False)
        signal.set_wakeup_fd(wake_write.fileno(), warn_on_full_buffer=False)
        for number in signals:
            signal.signal(number, lambda *_: self.stop())
        self._register(wake_read, lambda _: wake_read.recv(64))
        self._wake = (wake_read, wake_write)

    def upgrade_on(self, number: signal.Signals) -> None:
        """Be replaced when this signal arrives; ``stop_on`` must have been called."""

        def ask(*_: object) -> None:
            self._is_upgrade_asked = True

        signal.signal(number, ask)

    def close(self) -> None:
        """End every connection: each blocked thread of each client learns at once that the daemon is gone."""
        self._upgrades.close()
        clients = list(self._clients.values())
        for client in clients:
            # First of all, so that nobody is told of deaths that are only ours.
            for channel in client.channels:
                channel.shut()
        for client in clients:
            self._end(client, "the daemon stops", drain=False)
        self.traces.stop()
        for channel, peer in self._admission.silent.items():
            self._forget(channel)
            os.close(peer.pidfd)
        self._deaths.close()
        self._obituaries.close()
        self._epoll.close()
        self._listener.close()
        self._spare.release()

    # Time

    def _time_to_sleep(self) -> float | None:
        ends = [] if (deadline := self.traps.deadlines.next()) is None else [deadline]
        if self._idle_since is not None and self._settings.idle_exit is not None:
            ends.append(self._idle_since + self._settings.idle_exit)
        if self._upgrades.deadline is not None:
            ends.append(self._upgrades.deadline)
        if (silent := self._admission.next()) is not None:
            ends.append(silent)
        if self._door.opens is not None:
            ends.append(self._door.opens)
        return min(max(0.0, min(ends) - time.monotonic()), _LONGEST_SLEEP) if ends else None

    # Connections

    def _accept(self) -> None:
        try:
            sock = self._door.accept()
        except BlockingIOError:
            if self._door.opens is not None:
                # Not taken out, for which there might be no room to come back.
                self._epoll.modify(self._listener, 0)
            return
        except OSError as error:
            _log.warning(
                "a connection was refused: %s", error.strerror, extra=event("connection_refused", reason=error.strerror)
            )
            self._refuse_one()
            return
        channel = Channel(sock, self._closer)
        try:
            peer = attest(sock)
        except ProtocolError:
            channel.close()
            return
        channel.peer = peer
        if not self._watch(channel, lambda _: self._greet(channel, peer)):
            os.close(peer.pidfd)
            channel.close()
            return
        self._idle_since = None
        self._turn_away(self._admission.come(channel, peer))

    def _turn_away(self, silent: list[tuple[Channel, Peer]]) -> None:
        """End connections that have not said hello."""
        for channel, peer in silent:
            _log.warning(
                "a connection of process %d was ended: it has not said hello",
                peer.pid,
                extra=event("hello_overdue", pid=peer.pid, uid=peer.uid),
            )
            self._forget(channel)
            os.close(peer.pidfd)
        if silent:
            self._check_idle()

    def _refuse_one(self) -> None:
        """Out of descriptors: use the spare one to turn the next connection away, so that it does not hang."""
        self._spare.release()
        with contextlib.suppress(OSError):
            self._listener.accept()[0].close()
        self._spare.take()

    def _watch(self, channel: Channel, callback: Callback) -> bool:
        """Wait for what comes by a socket; whether the system, and our reserve of descriptors, allow one more."""
        if channel.sock.fileno() >= self.traps.descriptor_limit:
            reason = f"{channel.sock.fileno()} descriptors are in use"
            _log.warning("a connection was refused: %s", reason, extra=event("connection_refused", reason=reason))
            return False
        return self._register(channel.sock, callback)

    def _let_go(self, descriptor: int) -> None:
        """Neither watch nor keep a descriptor that came from a client any longer."""
        self._unregister(descriptor)
        self._closer.close([descriptor])

    def _greet(self, channel: Channel, peer: Peer) -> None:
        """The first packet: a new task, or a child's process that claims the task its parent made."""
        level = logging.WARNING
        try:
            received = channel.receive()
            if received is None:
                # Whoever connected was killed, as a rule.
                level = logging.INFO
                raise ProtocolError("the connection ended before its hello")
            self._closer.close(received[1])
            greeting = hello.unpack_hello(bytes(received[0]))
            task = self._admit(greeting, peer)
        except BlockingIOError:
            return
        except (ProtocolError, Refusal) as error:
            code = error.code if isinstance(error, Refusal) else None
            fields = event("hello_refused", pid=peer.pid, uid=peer.uid, reason=str(error), code=code)
            _log.log(level, "process %d was cut off: %s", peer.pid, error, extra=fields)
            self._admission.leave(channel)
            if isinstance(error, Refusal):
                with contextlib.suppress(OSError):
                    channel.answer(Answer(t.pack_refusal(error.code, error.rule, error.says)))
            self._forget(channel)
            os.close(peer.pidfd)
            self._check_idle()
            return
        self._admission.leave(channel)
        self._limiter.join(task, greeting.label, peer.pid)
        self.traces.limited(task)
        client = Client(peer, task, channel, was_made=bool(greeting.ticket))
        if not self._register(peer.pidfd, lambda _: self._end(client, endings.DIED)):
            self._terminate(task)
            self._admission.dismiss(peer)
            self._forget(channel)
            os.close(peer.pidfd)
            self._check_idle()
            return
        self._clients[task] = client
        self._callbacks[channel.sock.fileno()] = lambda events: self._serve(channel, events)
        fields = event("task_begins", task=task.number, label=task.label, pid=peer.pid, executable=client.executable)
        _log.info("task %s of process %d begins", task.label, peer.pid, extra=fields)
        with contextlib.suppress(OSError):
            # It may be gone already, which its socket says.
            channel.answer(Answer(b"\0\0\0\0" + task.label.encode()))

    def _admit(self, greeting: hello.Hello, peer: Peer) -> Task:
        if greeting.version != hello.VERSION:
            raise Refusal(
                c.MIG_BAD_ID, "hello", f"the daemon speaks version {hello.VERSION} and the task {greeting.version}"
            )
        self._admission.admit(peer)
        if not greeting.ticket:
            task = tasks.create_task(
                self.kernel, f"{greeting.label}[{peer.pid}]", peer.tokens, bootstrap=self.bootstrap.port
            )
            self.traces.began(task)
            return task
        try:
            task = self._children.claim(greeting.ticket)
        except Refusal:
            self._admission.dismiss(peer)
            raise
        task.tokens = peer.tokens
        task.label = f"{greeting.label}[{peer.pid}]"
        self.traces.claimed(task)
        return task

    def _end(self, client: Client, why: str, *, drain: bool = True) -> None:
        """A task is over: its threads go first, then all its rights.

        Args:
            drain: what its threads had asked for is carried out before.
        """
        if self._clients.pop(client.task, None) is None:
            return
        task = client.task
        fields = event("task_ends", task=task.number, label=task.label, pid=client.peer.pid, reason=why)
        _log.info("task %s of process %d ends: %s", task.label, client.peer.pid, why, extra=fields)
        self.traces.leaves(client)
        self._unregister(client.peer.pidfd)
        self._deaths.forget(client)
        reason, peer = endings.reason(client, why), client.peer
        if client.looks_on and len(client.channels) == 1:
            # It has held nothing, and whoever looks at the deaths need not see those of all who looked before.
            self._onlookers.add(client.task.number)
            os.close(peer.pidfd)
        else:
            self._obituaries.record(
                client.task, peer.pid, reason, peer.pidfd, executable=client.executable, began=client.began
            )
        channels = list(client.channels)
        if drain:
            for channel in channels:
                self.traps.drain(channel)
        for channel in channels:
            # None of them may be given what another had not read.
            self.traps.abandon(channel)
        for channel in channels:
            self._close(channel)
        if client.task.active:
            self._terminate(client.task)
        self._children.end_all_of(client.task)
        self._admission.dismiss(client.peer)
        self._check_idle()

    def _terminate(self, task: Task) -> None:
        tasks.task_terminate(self.kernel, task)
        self.traces.ended(task)

    def _lay_to_rest(self, client: Client) -> None:
        """A process runs its program no more: what it sent before counts, and then its task ends."""
        for channel in list(client.channels):
            # A child that it forked may hold the socket and write for ever.
            for _ in range(_LAST_PACKETS):
                if channel not in client.channels or not channel.has_more():
                    break
                self._serve(channel, _READ)
                self._settle()
        self._end(client, endings.DIED)

    def _check_idle(self) -> None:
        if not self._clients:
            self._idle_since = time.monotonic()

    def _close(self, channel: Channel) -> None:
        """A thread is gone: its call is interrupted, and messages that it has not read go back to their queues."""
        client = channel.client
        assert client is not None
        client.channels.pop(channel, None)
        if channel is not client.control and (account := self._limiter.of(client.task)) is not None:
            account.threads -= 1
            account.descriptors -= 1
            account.memory -= channel.memory
        self.traps.forget(channel)
        for result in channel.unread():
            self._take_back(client.task, result)
        self._forget(channel)

    def _take_back(self, task: Task, result: Result) -> None:
        """Undo what a thread was answered and has not read: nobody would ever know of it."""
        if result.received is not None:
            take_back(self.kernel, task, result)
            self.traces.taken_back(task, result)
        elif result.port is not None and result.port.receiver is task.space:
            name = result.port.name
            with contextlib.suppress(Refusal):
                ports.mach_port_destroy(self.kernel, task, name)
            self.traces.unmade(task, name)

    def _forget(self, channel: Channel) -> None:
        self._unregister(channel.sock)
        channel.close()
        # They know each other; whoever counts references would keep both for ever.
        channel.client = None

    def _hang_up(self, channel: Channel, why: str) -> None:
        """One connection ends; if it is the task's own, or was used to break the protocol, the task does."""
        client = channel.client
        if client is None:
            return
        if channel is client.control:
            self._end(client, why)
        elif channel in client.channels:
            self._close(channel)

    # Packets

    def _serve(self, channel: Channel, events: int) -> None:
        """One event of a client's socket: at most one packet is looked at, so that nobody starves."""
        try:
            if events == _READ and channel.rings is not None and channel.take_wake():
                self.traps.attend(channel)
                return
            if events & _WRITE:
                # Perhaps its ring was not looked at while the answer waited.
                if channel.rings is None:
                    self.traps.flush(channel)
                else:
                    self.traps.attend(channel)
                if not channel.waits_for_socket():
                    self._epoll.modify(channel.sock, _READ)
                return
            received = channel.receive()
        except BlockingIOError:
            return
        except (ProtocolError, LimitReached, OSError) as error:
            self._hang_up(channel, f"cut off: {error}")
            return
        if received is None:
            # Of a dead process, the sockets of threads may end before the task's own does.
            self.traps.drain(channel)
            self._hang_up(channel, endings.HUNG_UP)
            return
        payload, descriptors = received
        client = channel.client
        assert client is not None
        if not payload and channel.rings is not None:
            self._closer.close(descriptors)
            self.traps.attend(channel)
            return
        try:
            self.traps.take(channel, payload, descriptors)
        except ProtocolError as error:
            self._closer.close(descriptors)
            self._end(client, f"cut off: {error}", drain=False)

    def _wait_writable(self, channel: Channel) -> None:
        self._epoll.modify(channel.sock, _WRITE)

    # Calls on the daemon itself

    def _own_calls(self) -> dict[int, OwnCall]:
        return {
            t.THREAD.number: lambda channel, payload, descriptors: self._new_thread(channel),
            t.WIDEN.number: lambda channel, payload, descriptors: self._widen(channel),
            t.UPGRADE.number: self._upgrade,
        }

    def _new_thread(self, channel: Channel) -> Answer:
        """A channel for one more thread: the thread's end of its socket, and the memory of its rings."""
        client = client_of(channel)
        if channel is not client.control:
            raise ProtocolError("a channel for a thread is asked for where the connection began")
        tasks.check_alive(client.task)
        self._limiter.check(client.task, "descriptors")
        self._limiter.check(client.task, "memory", 2 * rings.NARROW)
        account = self._limiter.check(client.task, "threads")
        with contextlib.ExitStack() as undo:
            try:
                pair = rings.create(rings.NARROW)
                undo.callback(pair.close)
                memory = os.dup(pair.descriptor)
                undo.callback(os.close, memory)
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                undo.callback(theirs.close)
            except (OSError, LimitReached) as error:
                raise Refusal(c.KERN_RESOURCE_SHORTAGE, "thread", f"nothing is left for a thread: {error}") from None
            channel = Channel(ours, self._closer, pair)
            if not self._watch(channel, lambda events: self._serve(channel, events)):
                channel.close()
                raise Refusal(c.KERN_RESOURCE_SHORTAGE, "thread", "the daemon has no descriptor for another thread")
            undo.pop_all()
        client.add(channel)
        channel.memory = 2 * rings.NARROW
        account.threads += 1
        account.descriptors += 1
        account.memory += channel.memory
        pair.daemon_bell.arm()
        return Answer(t.THREAD.pack_answer(), descriptors=[theirs.detach(), memory], gives_descriptors=True)

    def _widen(self, channel: Channel) -> Answer:
        """Wider rings for a thread, which are used from the next trap on."""
        if not channel.by_ring:
            raise Refusal(c.KERN_INVALID_ARGUMENT, "widen", "wider rings are asked for by a ring")
        tasks.check_alive(client_of(channel).task)
        account = self._limiter.check(client_of(channel).task, "memory", 2 * rings.WIDE)
        try:
            pair = rings.create(rings.WIDE)
        except LimitReached as error:
            raise Refusal(c.KERN_RESOURCE_SHORTAGE, "widen", str(error)) from None
        account.memory += 2 * rings.WIDE
        channel.memory += 2 * rings.WIDE
        return Answer(t.WIDEN.pack_answer(), descriptors=[pair.descriptor], rings=pair)

    def _upgrade(self, channel: Channel, payload: bytes | memoryview, descriptors: list[int]) -> None:
        """It is answered by whoever is the daemon then."""
        t.UPGRADE.unpack(payload)
        check_oversight(client_of(channel), "upgrade")
        client_of(channel).looks_on = True
        self._upgrades.ask(channel)

    # Another process takes over

    def _look_for_upgrade(self) -> None:
        if self._is_upgrade_asked:
            self._is_upgrade_asked = False
            self._upgrades.ask()
        self._upgrades.check_time()
        if self._upgrades.is_due:
            while self.kernel.unfinished:
                # What is under way cannot be handed over.
                tasks.carry_on(self.kernel, _AT_ONCE)
                self._settle()
            self.is_replaced = self._upgrades.replace(lambda: self._running)
            if self.is_replaced:
                # What comes is done elsewhere.
                self.traces.stop()

    def _answer(self, channel: Channel, answer: Answer) -> None:
        """Answer a trap that was asked some time ago."""
        channel.outbox.append(answer)
        self.traps.flush(channel)

    def save(self, saving: Saving) -> bytes:
        """All that this daemon is, but for the descriptors; it goes on as before."""
        state = {
            "listener": saving.descriptor(self._listener.fileno()),
            "lock": saving.descriptor(self.place.lock),
            "path": str(self.place.path),
            "idle_since": self._idle_since,
            "bootstrap": self.bootstrap.state(saving),
            "clients": [save_client(client, saving) for client in self._clients.values()],
            "strangers": [
                [save_channel(channel, saving), save_peer(peer, saving)]
                for channel, peer in self._admission.silent.items()
            ],
            "parts": {name: part.state(saving) for name, part in self._parts.items()},
        }
        return saving.pack(self.kernel, state)

    @classmethod
    def restore(
        cls,
        data: bytes | memoryview,
        descriptors: Sequence[int],
        settings: Settings,
        *,
        arguments: Sequence[str] = (),
    ) -> tuple[Self, Restoring]:
        """The daemon that ``save`` was called of, with descriptors of this process; ``begin`` lets it go on.

        Raises:
            ProtocolError: it is no such state, or of a version that this program does not read.
            OSError, MachError: the system has no room for it.
        """
        state, restoring = unpack(data, descriptors)
        try:
            return cls._restored(state, restoring, settings, arguments), restoring
        except (LookupError, TypeError, ValueError, AttributeError, AssertionError) as error:
            raise ProtocolError(f"this is not the state of a daemon: {error!r}") from error

    @classmethod
    def _restored(cls, state: State, restoring: Restoring, settings: Settings, arguments: Sequence[str]) -> Self:
        listener = socket.socket(fileno=restoring.descriptor(state["listener"]))
        place = Place(Path(state["path"]), restoring.descriptor(state["lock"]))
        limits = settings.configuration.daemon
        most = limits.services, limits.services_per_process
        begun = restoring.kernel, Bootstrap.resumed(restoring.kernel, state["bootstrap"], restoring, *most)
        daemon = cls(listener, place, settings, arguments=arguments, begun=begun)
        daemon._resume(state, restoring)
        return daemon

    def _resume(self, state: State, restoring: Restoring) -> None:
        self._idle_since = state["idle_since"]
        for saved in state["clients"]:
            client = resume_client(saved, self._closer, restoring)
            self._clients[client.task] = client
            self._admission.count(client.peer)
            self._watch_client(client)
        for saved, saved_peer in state["strangers"]:
            channel = resume_channel(saved, self._closer, restoring)
            self._watch_stranger(channel, resume_peer(saved_peer, restoring))
        for name, saved in state["parts"].items():
            if name not in self._parts:
                raise ProtocolError(f"there is a part {name}, which this program does not have")
            self._parts[name].resume(saved, restoring)
        for client in self._clients.values():
            account = self._limiter.of(client.task)
            if account is None:
                if client.task.active:
                    raise ProtocolError(f"task {client.task.label} has no limits")
                # It was terminated, and its process has not gone yet.
                continue
            account.memory = sum(channel.memory for channel in client.channels)

    def _watch_client(self, client: Client) -> None:
        self._must_register(client.peer.pidfd, lambda _: self._end(client, endings.DIED))
        for channel in client.channels:
            self._watch_channel(channel)
            self.traps.resume_deadlines(channel)

    def _watch_channel(self, channel: Channel) -> None:
        self._must_register(channel.sock, lambda events: self._serve(channel, events))

    def _watch_stranger(self, channel: Channel, peer: Peer) -> None:
        channel.peer = peer
        self._admission.come(channel, peer)
        self._must_register(channel.sock, lambda _: self._greet(channel, peer))

    def _must_register(self, file: socket.socket | int, callback: Callback) -> None:
        if not self._register(file, callback):
            raise OSError("a descriptor cannot be watched")

    def begin(self) -> None:
        """Go on with clients that another process served until now.

        All their rings are looked at: nobody looks at those whose bells were disarmed.
        """
        for client in list(self._clients.values()):
            for channel in client.channels:
                if channel.rings is None:
                    self.traps.flush(channel)
                else:
                    self.traps.attend(channel)

    # After each event

    def _settle(self) -> None:
        """Do all that a call or a death has set going, until nothing is left of it.

        Threads whose calls are finished get their answers, connections that turned out to be broken end, and files
        that nobody has a right to are closed.  What one of these sets going is done by the same loop, so that many
        clients dying at once cost no depth.
        """
        while True:
            self.traps.settle()
            if not self.traps.broken:
                break
            self._hang_up(*self.traps.broken.popleft())

    def _released(self, released: object) -> None:
        """Nobody has a right any more to what the kernel held for us."""
        if isinstance(released, OpenFile):
            self._closer.close([released.descriptor])
            if released.holder is not None and (account := self._limiter.of(released.holder)) is not None:
                account.descriptors -= 1
        elif isinstance(released, Task):
            self._children.forget(released)
            # There may be more of them as long as its end goes on.
            losses = self.kernel.losses.of(released.number)
            self._limiter.end(released)
            if released.number in self._onlookers:
                self._onlookers.discard(released.number)
                return
            self._obituaries.record(released, self._calls.pid_of(released), "was terminated")
            self._obituaries.lost(released.number, losses)
