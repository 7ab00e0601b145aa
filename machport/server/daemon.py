"""The daemon: one process and one loop around one kernel.

A trap is read, carried out and answered before the next; what a call changes for other threads is answered right
after it.  A client that breaks the protocol, does not read, or dies costs its own connection.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import os
import resource
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from machport.abi import constants as c
from machport.abi import traps as t
from machport.abi.errors import LimitReached, ProtocolError
from machport.carrier import hello
from machport.kernel import messages, tasks
from machport.kernel.copyout import take_back
from machport.kernel.kernel import Kernel
from machport.kernel.refusal import Refusal
from machport.kernel.task import Task
from machport.kernel.waiter import Result, Waiter
from machport.server.bootstrap import Bootstrap
from machport.server.children import Children
from machport.server.closer import Closer
from machport.server.connection import Channel, Client, Peer, attest
from machport.server.deaths import Deaths
from machport.server.dispatch import Answer, OpenFile, dispatch, msg_answer

_log: Final = logging.getLogger("machport.daemon")
_READ: Final = selectors.EVENT_READ
_WRITE: Final = selectors.EVENT_WRITE
#: Descriptors that connections and files of clients may not use up: for long messages and answers on their way.
_DESCRIPTOR_RESERVE: Final = 64
#: Seconds after which the loop looks at its deadlines in any case: epoll does not count to a trap's longest timeout.
_LONGEST_SLEEP: Final = 3600.0
#: Traps of a dead thread that are still carried out; an honest one has one, and perhaps takes it back.
_LAST_TRAPS: Final = 64
#: Deadlines of calls that were served before, which are kept until they would come or are more than this.
_STALE_DEADLINES: Final = 1000


class Daemon:
    """A kernel, and the processes that call it.

    Args:
        listener: a listening SOCK_SEQPACKET socket, not blocking.
        idle_exit: seconds without any client after which ``run`` returns; None for never.
    """

    def __init__(self, listener: socket.socket, *, idle_exit: float | None = None) -> None:
        self.kernel = Kernel()
        self.bootstrap = Bootstrap(self.kernel)
        self._listener = listener
        self._idle_exit = idle_exit
        self._idle_since: float | None = time.monotonic()
        self._running = True
        self._clients: dict[Task, Client] = {}
        self._waiting: dict[Waiter, Channel] = {}
        self._deadlines: list[tuple[float, int, Channel]] = []
        self._order = itertools.count()
        self._settling = False
        self._broken: deque[tuple[Channel, str]] = deque()
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, _READ, lambda _: self._accept())
        self._closer = Closer()
        self._children = Children(self.kernel, self._register, self._let_go)
        self._deaths = Deaths(self._register, self._lay_to_rest)
        limit = _raise_descriptor_limit()
        self._descriptor_limit = limit - min(_DESCRIPTOR_RESERVE, limit // 4)
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def run(self) -> None:
        """Serve until ``stop``, or until nobody has been there for ``idle_exit`` seconds."""
        while self._running:
            for key, events in self._selector.select(self._time_to_sleep()):
                if self._is_registered(key):
                    key.data(events)
                    self._settle()
            self._expire()
            if self._idle_since is not None and self._idle_exit is not None:
                self._running &= time.monotonic() < self._idle_since + self._idle_exit

    def _is_registered(self, key: selectors.SelectorKey) -> bool:
        """Whether an event is still wanted: what one event ends may have been ready, too, and its number used again."""
        try:
            return self._selector.get_key(key.fd).data is key.data
        except KeyError:
            return False

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
        self._selector.register(wake_read, _READ, lambda _: wake_read.recv(64))
        self._wake = (wake_read, wake_write)

    def close(self) -> None:
        """End every connection: each blocked thread of each client learns at once that the daemon is gone."""
        clients = list(self._clients.values())
        for client in clients:
            # First of all, so that nobody is told of deaths that are only ours.
            for channel in client.channels:
                channel.shut()
        for client in clients:
            self._end(client, "the daemon stops")
        self._deaths.close()
        self._selector.close()
        self._listener.close()
        os.close(self._spare)

    # Time

    def _time_to_sleep(self) -> float | None:
        ends = [self._deadlines[0][0]] if self._deadlines else []
        if self._idle_since is not None and self._idle_exit is not None:
            ends.append(self._idle_since + self._idle_exit)
        return min(max(0.0, min(ends) - time.monotonic()), _LONGEST_SLEEP) if ends else None

    def _expire(self) -> None:
        now = time.monotonic()
        while self._deadlines and self._deadlines[0][0] <= now:
            deadline, _, channel = heapq.heappop(self._deadlines)
            if channel.deadline == deadline and channel.waiter is not None:
                messages.expire(self.kernel, channel.waiter)
                self._settle()

    def _arm(self, channel: Channel, waiter: Waiter) -> None:
        milliseconds = waiter.deadline_ms
        channel.deadline = None
        if milliseconds is not None:
            channel.deadline = time.monotonic() + milliseconds / 1000
            heapq.heappush(self._deadlines, (channel.deadline, next(self._order), channel))
            if len(self._deadlines) > _STALE_DEADLINES + 2 * len(self._waiting):
                self._deadlines = [entry for entry in self._deadlines if entry[2].deadline == entry[0]]
                heapq.heapify(self._deadlines)

    # Connections

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            _log.warning("a connection was refused: %s", error.strerror)
            self._refuse_one()
            return
        channel = Channel(sock, self._closer)
        try:
            peer = attest(sock)
        except ProtocolError:
            channel.close()
            return
        if peer.uid not in (os.getuid(), 0):
            _log.warning("user %d, process %d, was refused", peer.uid, peer.pid)
            os.close(peer.pidfd)
            channel.close()
            return
        if not self._watch(channel, lambda _: self._greet(channel, peer)):
            os.close(peer.pidfd)
            channel.close()
            return
        self._idle_since = None

    def _refuse_one(self) -> None:
        """Out of descriptors: use the spare one to turn the next connection away, so that it does not hang."""
        os.close(self._spare)
        with contextlib.suppress(OSError):
            self._listener.accept()[0].close()
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _watch(self, channel: Channel, callback: Callable[[int], None]) -> bool:
        """Wait for what comes by a socket; whether the system, and our reserve of descriptors, allow one more."""
        if channel.sock.fileno() >= self._descriptor_limit:
            _log.warning("a connection was refused: %d descriptors are in use", channel.sock.fileno())
            return False
        return self._register(channel.sock, callback)

    def _register(self, file: socket.socket | int, callback: Callable[[int], None]) -> bool:
        try:
            self._selector.register(file, _READ, callback)
        except OSError as error:
            _log.warning("a descriptor cannot be watched: %s", error.strerror)
            return False
        return True

    def _let_go(self, descriptor: int) -> None:
        """Neither watch nor keep a descriptor that came from a client any longer."""
        self._selector.unregister(descriptor)
        self._closer.close([descriptor])

    def _greet(self, channel: Channel, peer: Peer) -> None:
        """The first packet: a new task, or a child's process that claims the task its parent made."""
        try:
            received = channel.receive()
            if received is None:
                raise ProtocolError("the connection ended before its hello")
            self._closer.close(received[1])
            greeting = hello.unpack_hello(received[0])
            task = self._admit(greeting, peer)
        except BlockingIOError:
            return
        except (ProtocolError, Refusal) as error:
            _log.warning("process %d was cut off: %s", peer.pid, error)
            if isinstance(error, Refusal):
                with contextlib.suppress(OSError):
                    channel.send(Answer(t.pack_refusal(error.code, error.rule, error.says)))
            self._forget(channel)
            os.close(peer.pidfd)
            self._check_idle()
            return
        client = Client(peer, task, channel)
        if not self._register(peer.pidfd, lambda _: self._end(client, "its process died")):
            tasks.task_terminate(self.kernel, task)
            self._forget(channel)
            os.close(peer.pidfd)
            self._check_idle()
            return
        self._clients[task] = client
        self._selector.modify(channel.sock, _READ, lambda events: self._serve(channel, events))
        _log.info("task %s of process %d begins", task.label, peer.pid)
        self._answer(channel, Answer(b"\0\0\0\0" + task.label.encode()))

    def _admit(self, greeting: hello.Hello, peer: Peer) -> Task:
        if greeting.version != hello.VERSION:
            raise Refusal(
                c.MIG_BAD_ID, "hello", f"the daemon speaks version {hello.VERSION} and the task {greeting.version}"
            )
        if not greeting.ticket:
            return tasks.create_task(
                self.kernel, f"{greeting.label}[{peer.pid}]", peer.tokens, bootstrap=self.bootstrap.port
            )
        task = self._children.claim(greeting.ticket)
        task.tokens = peer.tokens
        task.label = f"{greeting.label}[{peer.pid}]"
        return task

    def _end(self, client: Client, why: str) -> None:
        """A task is over: its threads go first, then all its rights."""
        if self._clients.pop(client.task, None) is None:
            return
        _log.info("task %s of process %d ends: %s", client.task.label, client.peer.pid, why)
        self._selector.unregister(client.peer.pidfd)
        os.close(client.peer.pidfd)
        self._deaths.forget(client)
        channels = list(client.channels)
        for channel in channels:
            # None of them may be given what another had not read.
            self._interrupt(channel)
        for channel in channels:
            self._close(channel)
        if client.task.active:
            tasks.task_terminate(self.kernel, client.task)
        self._children.end_all_of(client.task)
        self._check_idle()

    def _lay_to_rest(self, client: Client) -> None:
        """A process runs its program no more: what it sent before counts, and then its task ends."""
        for channel in list(client.channels):
            # A child that it forked may hold the socket and write for ever.
            for _ in range(_LAST_TRAPS):
                if channel not in client.channels or not channel.has_more():
                    break
                self._serve(channel, _READ)
                self._settle()
        self._end(client, "its threads have ended")

    def _check_idle(self) -> None:
        if not self._clients:
            self._idle_since = time.monotonic()

    def _close(self, channel: Channel) -> None:
        """A thread is gone: its call is interrupted, and a message that it has not read goes back to its queue."""
        client = channel.client
        assert client is not None
        client.channels.discard(channel)
        self._interrupt(channel)
        if channel.delivered is not None and not channel.was_read():
            take_back(self.kernel, client.task, channel.delivered)
        self._forget(channel)

    def _interrupt(self, channel: Channel) -> None:
        """The call that the thread waits in ends without an answer."""
        waiter, channel.waiter = channel.waiter, None
        if waiter is not None:
            del self._waiting[waiter]
            messages.abandon(self.kernel, waiter)

    def _forget(self, channel: Channel) -> None:
        channel.deadline = None
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(channel.sock)
        channel.close()

    def _hang_up(self, channel: Channel, why: str) -> None:
        """One connection ends; if it is the task's own, the task does."""
        client = channel.client
        assert client is not None
        if channel is client.control:
            self._end(client, why)
        elif channel in client.channels:
            self._close(channel)

    # Traps

    def _serve(self, channel: Channel, events: int) -> None:
        """One event of a client's socket: at most one trap is carried out, so that nobody starves."""
        try:
            if events & _WRITE and channel.outbox is not None:
                if channel.send(channel.outbox):
                    self._selector.modify(channel.sock, _READ, lambda events: self._serve(channel, events))
                return
            received = channel.receive()
        except BlockingIOError:
            return
        except (ProtocolError, LimitReached, OSError) as error:
            self._hang_up(channel, f"cut off: {error}")
            return
        if received is None:
            self._hang_up(channel, "its connection ended")
            return
        payload, descriptors = received
        client = channel.client
        assert client is not None
        try:
            answer = self._trap(channel, payload, descriptors)
        except Exception as error:
            self._closer.close(descriptors)
            if not isinstance(error, ProtocolError):
                # A fault of ours.  Whoever met it is cut off, and everybody else goes on.
                _log.exception("a trap of task %s could not be carried out", client.task.label)
            self._end(client, f"cut off: {error}")
            return
        if answer is None or not answer.keeps_descriptors:
            self._closer.close(descriptors)
        if answer is not None:
            self._answer(channel, answer)

    def _trap(self, channel: Channel, payload: bytes, descriptors: list[int]) -> Answer | None:
        """Carry out a trap; None if its answer comes later, or never."""
        client = channel.client
        assert client is not None
        number = t.number_of(payload)
        if number == t.ABANDON.number:
            channel.reset = True
            self._broken.append((channel, "its thread gave its call up"))
            return None
        if number == t.INTERRUPT.number:
            if channel.waiter is not None:
                messages.interrupt(self.kernel, channel.waiter)
            return None
        if channel.waiter is not None:
            raise ProtocolError("a trap while another of the same thread is under way")
        channel.delivered = None
        try:
            if any(descriptor >= self._descriptor_limit for descriptor in descriptors):
                raise Refusal(c.KERN_RESOURCE_SHORTAGE, "descriptors", "the daemon has no descriptor left for files")
            if number == t.THREAD.number:
                return self._new_thread(client)
            if number == t.TICKET.number:
                return self._children.ticket(client.task, t.TICKET.unpack(payload)[0][0])
            if number == t.WATCH.number:
                return self._children.watch(client.task, t.WATCH.unpack(payload)[0][0], descriptors)
            if number == t.LIFELINE.number:
                return self._deaths.watch(client, t.LIFELINE.unpack(payload)[0][0], descriptors)
            if number == t.TASK_CREATE.number:
                return self._children.create(client.task, t.TASK_CREATE.unpack(payload)[0][0])
        except Refusal as refusal:
            return Answer(t.pack_refusal(refusal.code, refusal.rule, refusal.says))
        outcome = dispatch(self.kernel, client.task, payload, descriptors)
        if isinstance(outcome, Answer):
            return outcome
        if outcome.result is not None:
            return self._message_answer(channel, outcome.result)
        channel.waiter = outcome
        self._waiting[outcome] = channel
        self._arm(channel, outcome)
        return None

    def _message_answer(self, channel: Channel, result: Result) -> Answer:
        if result.received is not None:
            channel.delivered = result
        return msg_answer(result)

    def _new_thread(self, client: Client) -> Answer:
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise Refusal(c.KERN_RESOURCE_SHORTAGE, "thread", f"no connection for a thread: {error.strerror}") from None
        channel = Channel(ours, self._closer)
        if not self._watch(channel, lambda events: self._serve(channel, events)):
            channel.close()
            theirs.close()
            raise Refusal(c.KERN_RESOURCE_SHORTAGE, "thread", "the daemon has no descriptor for another thread")
        channel.client = client
        client.channels.add(channel)
        return Answer(t.THREAD.pack_answer(), [theirs.detach()], gives_descriptors=True)

    # Answers

    def _settle(self) -> None:
        """Do all that a call has set going, until nothing is left of it.

        Threads whose calls are finished get their answers, the bootstrap port is served, connections that turned out
        to be broken end, and files that nobody has a right to are closed.  What one of these sets going is done by
        the same loop, so that many clients dying at once cost no depth.
        """
        if self._settling:
            return
        self._settling = True
        while True:
            for waiter in messages.collect(self.kernel):
                self._changed(waiter)
            if self._broken:
                self._hang_up(*self._broken.popleft())
            elif not self.kernel.woken:
                break
        self._settling = False
        released = self.kernel.take_released()
        self._closer.close([file.descriptor for file in released if isinstance(file, OpenFile)])
        for task in released:
            if isinstance(task, Task):
                self._children.forget(task)

    def _changed(self, waiter: Waiter) -> None:
        if waiter is self.bootstrap.waiter:
            self.bootstrap.serve()
            return
        channel = self._waiting.get(waiter)
        if channel is None:
            return
        if waiter.result is None:
            self._arm(channel, waiter)
            return
        del self._waiting[waiter]
        channel.waiter = channel.deadline = None
        self._answer(channel, self._message_answer(channel, waiter.result))

    def _answer(self, channel: Channel, answer: Answer) -> None:
        try:
            if not channel.send(answer):
                self._selector.modify(channel.sock, _WRITE, lambda events: self._serve(channel, events))
        except (OSError, LimitReached) as error:
            self._broken.append((channel, f"an answer could not be written: {error}"))


def _raise_descriptor_limit() -> int:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
