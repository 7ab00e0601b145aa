# cython: annotation_typing=False, auto_pickle=False
# The annotations speak to readers and mypy; the C types are in end.pxd.
"""One end of a queue: what its holder and the holder of the other end tell each other, and how each waits.

For ``machport.dataqueue.queue``.  A side that has nothing to do looks for a while, then it arms its bell and sleeps: at
the bell itself, which the lifeline of the other process may also end; or, where that cannot be or a descriptor was
asked for, at a socket and a pidfd.  The other side wakes it after it has published, and only if the bell is armed.

The holder of an end says by its sign whether it has it, has sent it on its way, or has closed it.  Whoever gets an end
introduces itself by the socket, and only then shows a new sign; so a sign that is known tells whose lifeline counts.
That process may lie about all this.  It can make this side wait for what never comes, or stop; no more.

Knows no port: whoever does lends ``notify``.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import socket
import threading
from collections.abc import Callable

from machport.abi.errors import PeerDied, QueueEnded, QueueMisuse
from machport.dataqueue import custody, extension
from machport.dataqueue.memory import DataQueueMemory
from machport.peer import introduction
from machport.peer.death import Death
from machport.peer.introduction import Peer
from machport.ring import layout, memory, sleeping, waking
from machport.ring.doorbell import Doorbell
from machport.ring.lifeline import Word
from machport.ring.sign import Sign
from machport.ring.sleeping import sleep, sleep_at
from machport.ring.spinning import after_sleep, spin_ns

_log = logging.getLogger("machport.dataqueue")
_VIEWS = (
    "the producer of a data queue waits for room, and the room of what was read is held by views (entries still looked"
    " at: %d); copy what you keep (`for entry in map(bytes, queue)`), let go of its views, or make a larger queue"
)

NAMES = ("producer", "consumer")
#: What says that there is no descriptor left.
LACKING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ETOOMANYREFS)

_PRODUCER = extension.PRODUCER
_STATE = extension.STATE
_ABANDONED = extension.ABANDONED
_HELD = extension.HELD
_TRAVELLING = extension.TRAVELLING
_CLOSED = extension.CLOSED
_AT_BELL = extension.AT_BELL
_AT_SOCKET = extension.AT_SOCKET
_AT_PORT = extension.AT_PORT


class End:
    """One end, as its holder has it.

    Attributes:
        role: ``extension.PRODUCER`` or ``extension.CONSUMER``.
        ring: the queue's ring.
        sibling: the other end, if the same object has it too.
        peer: the process that has the other end, as far as it has introduced itself.
        over: whether the other end is gone for good.
        closed: whether this end is not here any more.
        user: the thread that waits or has an entry in its hands, 0 if none.
        wakeups: how many times the other side was woken.
        coalesced: how many times it might have had to be, and was awake or had a message waiting.
        notify: sends the notification and tells whether it was queued; None if there is no port.
    """

    def __init__(self, role: int, memory: DataQueueMemory, sock: socket.socket) -> None:
        start = extension.place(memory.capacity)
        region = memory.mapping
        self.role = role
        self.ring = memory.ring
        self.sock = sock
        self._descriptor = sock.fileno()
        self._sign = Sign(region, start + extension.SIGN[role])
        self._other_sign = Sign(region, start + extension.SIGN[1 - role])
        self._bell = Doorbell(region, start + extension.BELL[role])
        self._other_bell = Doorbell(region, start + extension.BELL[1 - role])
        self._wanted = Sign(region, start + extension.WANTED)
        self.sibling: End | None = None
        self.peer: Peer | None = None
        self._line: Word | None = None
        self._known = 0
        self.over = False
        self.closed = False
        self._abandoned = False
        self._death: Death | None = None
        self.user = 0
        self.wakeups = 0
        self.coalesced = 0
        self.notify: Callable[[], bool] | None = None
        self._bells = sleeping.is_compiled()
        self._budget = self._most = spin_ns()
        self._epoll: select.epoll | None = None
        self._event = -1
        self._watched = -1
        self._waiting = 0
        self._owes = False

    # Holding

    @property
    def generation(self) -> int:
        """How many processes have had this end before."""
        return self._sign.read() >> extension.STATE_BITS

    @property
    def travels(self) -> bool:
        """Whether it is on its way to another process."""
        return self._sign.read() & _STATE == _TRAVELLING

    def hold(self, generation: int) -> None:
        """Show that this process has the end."""
        self._sign.write(generation % extension.GENERATIONS << extension.STATE_BITS | _HELD)

    def arrive(self) -> None:
        """The end has come here from another process: say so to the other side.

        Raises:
            OSError: there is no descriptor left to do so.
        """
        generation = (self.generation + 1) % extension.GENERATIONS
        self.introduce(generation, answer=True)
        self.hold(generation)
        self.tell()

    def introduce(self, generation: int, *, answer: bool = False) -> None:
        """Send an introduction, unless the other side is gone, or was never there."""
        try:
            introduction.introduce(self.sock, generation, answer=answer)
        except OSError as error:
            if error.errno in LACKING:
                raise

    def leave(self) -> None:
        """Show that the end is on its way to another process."""
        self._sign.write(self.generation << extension.STATE_BITS | _TRAVELLING)
        # Who sleeps at its bell relies on this process, and would not see the end getting lost on its way.
        self.tell()

    def stay(self) -> None:
        """It did not get away."""
        self.hold(self.generation)

    def close(self) -> None:
        """Give the end up in order, and let the other side know."""
        self._give_up(_CLOSED)

    def abandon(self) -> None:
        """Give the end up because it was forgotten, by an error as a rule."""
        self._give_up(_ABANDONED)

    def _give_up(self, state: int) -> None:
        self._sign.write(self.generation << extension.STATE_BITS | state)
        self.tell()
        self.drop()

    def depart(self) -> None:
        """The end is not of this process any more: another one has it, or nobody."""
        self._part()
        # Who sleeps at the other end, be it in this process, has to do with another one now.
        self.tell()
        self.drop()

    def drop(self) -> None:
        """Let go of everything but the memory, and do not tell the other side."""
        self.closed = True
        if self.role != _PRODUCER:
            self.ring.when_room = None
        self.notify = None
        self._part()
        if not self._waiting:
            self._let_go()
        elif self._bell.ring() == _AT_BELL:
            sleeping.wake(self._bell)
        else:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RD)

    def forked(self) -> None:
        """This is a forked child, and the end is the parent's, with all that it has lent."""
        self.closed = True
        self.ring.forget_loans()
        self._waiting = 0
        self.drop()

    def _part(self) -> None:
        if self.sibling is not None:
            self.sibling.sibling = None
            self.sibling = None

    def _let_go(self) -> None:
        """Close all descriptors.  Not while a thread waits at them: it would wait for whatever gets their numbers."""
        self._descriptor = -1
        epoll, self._epoll = self._epoll, None
        if epoll is not None:
            epoll.close()
            os.close(self._event)
        if self.peer is not None:
            self.peer.close()
        self._line = None
        self.sock.close()

    # The other side

    def published(self, answer: int) -> None:
        """After an entry went in with ``answer``: wake the consumer if it sleeps."""
        if not self.tell():
            if answer == layout.ADDED and not self._owes:
                return
            self.coalesced += self.notify is None
        if (answer != layout.ADDED or self._owes) and self.notify is not None:
            self._notify()

    def tell(self) -> bool:
        """After publishing or making room: wake the other side if it sleeps; whether it did."""
        way = self._other_bell.ring()
        if way == layout.SILENT:
            return False
        if way == _AT_PORT:
            if self.notify is not None:
                self._notify()
            return True
        self.wakeups += 1
        if way == _AT_BELL:
            sleeping.wake(self._other_bell)
        else:
            # Without a step at which a signal could come between: the bell is taken, and nobody else would do it.
            waking.wake(self._descriptor)
        return True

    def room_was_made(self) -> None:
        """The consumer let go of a lent entry."""
        self.tell()

    def _notify(self) -> None:
        notify, queued = self.notify, False
        if notify is not None:
            # A signal's handler may raise in the middle, and the entry is in the ring.
            self._owes = True
            try:
                queued = notify()
            except BaseException:
                with contextlib.suppress(BaseException):
                    notify()
                raise
            self._owes = False
        if queued:
            self.wakeups += 1
        else:
            self.coalesced += 1

    def is_over(self) -> bool:
        """Whether the other end is gone; costs two loads while a process that is known has it."""
        if self.over:
            return True
        sign = self._other_sign.read()
        # Nobody is known by 0, but it is a sign, too: that the first holder has abandoned its end.
        if sign == self._known and sign != 0:
            line = self._line
            if line is not None and not line.is_slack():
                return False
        return self._look_around(sign)

    def _look_around(self, sign: int) -> bool:
        if self.sibling is not None:
            # The same object closes both.
            return False
        if sign & _STATE == _TRAVELLING:
            custody.close_passed()
        heard = introduction.listen(self.sock)
        if heard.peer is not None:
            self._meet(heard.peer, heard.answer)
        if heard.packets and self._epoll is not None:
            # They made the descriptor readable, and only an operation that finds nothing to do may end that.
            os.eventfd_write(self._event, 1)
        peer = self.peer
        dead = peer is not None and peer.is_dead()
        if dead or heard.ended:
            # A holder shows its last sign before it lets go, so what counts is what stands there now.
            sign = self._other_sign.read()
        state = sign & _STATE
        # An introduction may be lost for want of a descriptor: who has introduced itself need not be who has the end.
        introduced = state == _HELD and peer is not None and peer.generation == sign >> extension.STATE_BITS
        self._known = 0
        if state == _CLOSED:
            self.over = True
        elif state == _ABANDONED or heard.ended or (dead and introduced):
            self.over = True
            self._abandoned = state == _ABANDONED
            # Whoever had it sent it on, and lives: it was lost on its way to somebody whom nobody knows.
            if peer is None or (state == _TRAVELLING and not dead):
                self._death = Death(0, "", -1)
            else:
                self._death = peer.death()
        elif introduced and peer is not None and peer.line is not None and not peer.line.is_slack():
            # As long as the line is held.  If just its thread has ended, the pidfd will tell.
            self._known = sign
            self._line = peer.line
        return self.over

    def _meet(self, peer: Peer, answer: bool) -> None:
        before, self.peer = self.peer, peer
        if self._epoll is not None:
            self._unwatch()
            self._watch()
        if before is not None:
            before.close()
        if answer:
            with contextlib.suppress(OSError):
                self.introduce(self.generation)

    def ending(self) -> QueueEnded:
        """What to raise when the other end is over."""
        other = NAMES[1 - self.role]
        kind, death = QueueEnded, self._death
        if self._abandoned:
            kind = PeerDied
            says = f"the {other}'s end was forgotten without being closed, as by an error"
        elif death is None:
            says = f"the {other} has closed its end"
        else:
            kind = PeerDied
            if death.pid == 0 and not death.label:
                says = f"the {other}'s end was lost on its way to another process"
            else:
                says = f"the {other} is gone"
        error = kind(says)
        error.death = death
        return error

    # Waiting

    def is_ready(self, wanted: int) -> bool:
        """Consumer: is there an entry?  Producer: would an entry of ``wanted`` bytes be added, or refused for ever?"""
        if self.role == _PRODUCER:
            return self.ring.fits(wanted) != layout.FULL
        return self.ring.data_available()

    def wait(self, wanted: int, nanoseconds: int) -> bool:
        """Wait until the end is ready, for ever if the time is negative; False if it was not in time.

        Raises:
            QueueEnded: the other end is gone, and the ring as it left it is not ready.
            QueueMisuse: nobody could ever make it ready, or another thread uses the end.
        """
        if self.is_ready(wanted):
            return True
        if self.is_over():
            return self._at_the_end(wanted)
        if nanoseconds == 0:
            if self._epoll is not None:
                self.expose(wanted)
            elif self.role != _PRODUCER:
                if self.ring.lent:
                    return self._await_notification()
                # The last loan may have ended since we looked: the producer's sign (Q27) is for looks after that.
                return self.ring.data_available()
            return False
        before, self.user = self.user, memory.this_thread()
        begun = memory.now()
        self._waiting += 1
        try:
            budget = self._budget if nanoseconds < 0 else min(self._budget, nanoseconds)
            return self._look(wanted, budget) or self._sleep(wanted, nanoseconds, begun)
        finally:
            self._waiting -= 1
            self.user = before
            waited = memory.now() - begun
            # The same, but without a call in Python for who looked and found.
            self._budget = self._most if waited <= self._budget else after_sleep(self._budget, self._most, waited)
            if self.closed:
                if not self._waiting:
                    self._let_go()
            elif self._epoll is not None:
                # Who waits may have taken what made the descriptor readable, and does not leave the bell armed.
                os.eventfd_write(self._event, 1)

    def _at_the_end(self, wanted: int) -> bool:
        # What was published before the end was seen; a producer has nobody to publish for.
        if self.role != _PRODUCER and self.ring.data_available():
            return True
        raise self.ending()

    def _look(self, wanted: int, budget: int) -> bool:
        if self.role != _PRODUCER:
            return self.ring.look(budget)
        end = memory.now() + budget
        while budget > 0:
            if self.ring.look_for_room(wanted, budget):
                return True
            budget = end - memory.now()
        return self.is_ready(wanted)

    def _sleep(self, wanted: int, nanoseconds: int, begun: int) -> bool:
        if self.role == _PRODUCER:
            # A wait that ends by itself is not the consumer's to end: what no ring holds is wanted then.
            self._wanted.write(wanted if nanoseconds < 0 else layout.MAX_QUEUE_SIZE)
        while True:
            if self.closed:
                raise self.closed_meanwhile()
            way = self._way()
            self._bell.arm(way)
            try:
                if self.is_ready(wanted):
                    return True
                if self.is_over():
                    return self._at_the_end(wanted)
                if self.closed or self._way() != way:
                    continue
                if self.role == _PRODUCER:
                    # A full ring and a consumer that sleeps: it holds what it has not given back, and can say so.
                    self.tell()
                left = -1
                if nanoseconds < 0:
                    self._check_that_it_can_end()
                else:
                    left = begun + nanoseconds - memory.now()
                    if left <= 0:
                        return False
                if way == _AT_BELL:
                    if sleep(self._bell, way, self._line, left) == sleeping.UNABLE:
                        self._bells = False
                elif self._bell.is_armed(way):
                    # Otherwise a signal's handler has used the end since.
                    self._sleep_at_socket(left)
            finally:
                if not self.closed:
                    self._bell.disarm()

    def closed_meanwhile(self) -> QueueMisuse:
        """What to raise in a thread that waits at an end that is not here any more."""
        return QueueMisuse(f"the {NAMES[self.role]} of this data queue was closed while it was being waited at")

    def _way(self) -> int:
        if self._bells and self._epoll is None and (self.sibling is not None or self._known != 0):
            return _AT_BELL
        return _AT_SOCKET

    def _sleep_at_socket(self, nanoseconds: int) -> None:
        sleep_at(self._descriptor, -1 if self.peer is None else self.peer.fileno(), nanoseconds)
        # Takes what woke us.
        if self.closed:
            return
        if self.sibling is not None:
            introduction.listen(self.sock)
        else:
            self._look_around(self._other_sign.read())

    def _check_that_it_can_end(self) -> None:
        """Before sleeping for ever: refuse to wait for what only this thread could do."""
        both_here = self.sibling is not None and self._epoll is None
        held = self.ring.lent > 0 and self._producer_wants_more()
        # In this order: to count the threads takes longer than all the rest.
        if not (both_here or held):
            return
        if threading.active_count() > 1:
            if held:
                _log.warning(_VIEWS, self.ring.lent)
            return
        if both_here:
            raise QueueMisuse(
                "this would wait for ever: both ends of the queue are here, and there is no other thread; move one"
                " end to another process, use it in another thread, or pass timeout=0"
            )
        raise QueueMisuse("this would wait for ever: " + _VIEWS % self.ring.lent)

    def _producer_wants_more(self) -> bool:
        """Whether the producer waits for more room than there is; the room is the consumer's to give."""
        return (
            self.role != _PRODUCER
            and self._other_bell.is_armed()
            and self.ring.fits(self._wanted.read()) == layout.FULL
        )

    # Descriptors

    def fileno(self, wanted: int) -> int:
        """A descriptor that is readable while the end is ready or over, for event loops.

        Level-triggered: it stays readable until an operation that does not wait has found nothing to do.
        """
        if self._epoll is None:
            event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            try:
                epoll = select.epoll()
            except OSError:
                os.close(event)
                raise
            epoll.register(self.sock, select.EPOLLIN)
            epoll.register(event, select.EPOLLIN)
            self._epoll, self._event = epoll, event
            self._watch()
            self.expose(wanted)
        return self._epoll.fileno()

    def expose(self, wanted: int) -> None:
        """Let the descriptor be readable if there is something to do now, or when there is next."""
        if self.sibling is not None:
            introduction.listen(self.sock)
        elif not self.over:
            self._look_around(self._other_sign.read())
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._event)
        if self.role == _PRODUCER:
            self._wanted.write(wanted)
        self._bell.arm(_AT_SOCKET)
        if self.is_ready(wanted) or self.is_over():
            os.eventfd_write(self._event, 1)

    def _await_notification(self) -> bool:
        """Ask for a message at the notification port, because the ring's own signs (Q27) say nothing while it lends.

        True if there is an entry by now.
        """
        self._bell.arm(_AT_PORT)
        if not self.ring.data_available():
            return False
        self._bell.disarm()
        return True

    def _watch(self) -> None:
        if self.peer is not None and self.peer.fileno() >= 0 and self._epoll is not None:
            self._epoll.register(self.peer.fileno(), select.EPOLLIN)
            self._watched = self.peer.fileno()

    def _unwatch(self) -> None:
        if self._watched >= 0 and self._epoll is not None:
            with contextlib.suppress(OSError):
                self._epoll.unregister(self._watched)
        self._watched = -1
