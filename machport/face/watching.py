"""Notifications that are waited for one by one: what ``on_dead_name`` and its like give.

Each request has a port of its own.  How these ports are received from is the attendant's matter: that of an ordinary
task has a thread, which begins with the first request.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Final

from machport.abi import constants as c
from machport.abi.errors import AlreadyExists, ClosedRight, InvalidArgument, MachError, TimedOut
from machport.face.closing import Closing
from machport.face.message import Message, Notification, PortDeletedNotification, SendOnceNotification

if TYPE_CHECKING:
    from machport.face.blocking import PortSet, Task
    from machport.face.rights import AnyReceiveRight, Right, SendOnceRight
    from machport.face.task import AnyTask

#: What is called with a notification.
Callback = Callable[[Any], object]

#: In the flags of a function's code.
_IS_COROUTINE: Final = 0x80
_ABOUT: Final = {
    c.MACH_NOTIFY_DEAD_NAME: "the death of the port",
    c.MACH_NOTIFY_NO_SENDERS: "the end of all senders",
    c.MACH_NOTIFY_PORT_DESTROYED: "the return of the receive right",
}


class Watch(Closing):
    """One notification that was asked for, before and after it comes.

    Closing it withdraws the request; a ``with`` block does.
    """

    def __init__(self, request: Request, callback: Callback | None) -> None:
        self._request = request
        self.callback = callback

    @property
    def done(self) -> bool:
        """Whether the notification has come, or cannot come any more."""
        return self._request.done.is_set()

    def result(self) -> Any:
        """The notification.

        Raises:
            TimedOut: it has not come yet.
            ClosedRight: it cannot come any more: the right was given up or moved, the watch was closed, or somebody
                asked for a notification of this kind to a port of their own.
            DaemonLost, DeadTask: the daemon, or this task, ended before.
        """
        if not self.done:
            raise TimedOut(f"{self._request.about} has not been told of yet")
        if self._request.error is not None:
            raise self._request.error
        return self._request.notice

    def wait(self, timeout: float | None = None) -> Any:
        """Wait for the notification for up to ``timeout`` seconds; the same one each time.

        Raises: as ``result``; also ``InvalidArgument`` in a task of ``machport.aio``, whose watches are awaited.
        """
        self._request.attendant.wait(self._request, timeout)
        return self.result()

    def __await__(self) -> Generator[Any, None, Any]:
        return self._request.attendant.awaited(self)

    def close(self) -> None:
        """Wait for it no longer; what has come stays to be read."""
        self._request.leave(self)

    def __repr__(self) -> str:
        state = "waiting" if not self.done else "over" if self._request.error is not None else "come"
        return f"<Watch for {self._request.about}: {state}>"


class Request:
    """One request of the kernel, and all that watch for its notification.

    Attributes:
        port: where the notification comes.
        about: what is waited for, in words.
        done: set when ``notice`` or ``error`` is there.
    """

    def __init__(self, attendant: Attendant, right: Right, variant: int) -> None:
        self.attendant = attendant
        self.about = f"{_ABOUT[variant]} of {right.short_repr()}"
        self.done = threading.Event()
        self.notice: Notification | None = None
        self.error: MachError | None = None
        self.right = right
        self.variant = variant
        self.port: AnyReceiveRight = right.task.allocate()
        self._watches: list[Watch] = []
        self._lock = threading.Lock()

    def register(self, sync: int) -> None:
        """Ask the kernel.

        Raises:
            AlreadyExists: a notification of this kind goes to a port of the program's own, and still does.
        """
        previous = self.right.request_notification(self.variant, sync, self.port)
        if previous is None:
            return
        ours = self.right.request_notification(self.variant, sync, previous)
        if ours is not None:
            ours.close()
        raise AlreadyExists(
            f"{self.about} is told to a port already, as somebody asked; receive there, or cancel that request",
            task=self.right.task.label,
        )

    def watch(self, callback: Callback | None) -> Watch | None:
        """One more waits; None if it is over already."""
        with self._lock:
            if self.done.is_set():
                return None
            watch = Watch(self, callback)
            self._watches.append(watch)
            return watch

    def leave(self, watch: Watch) -> None:
        """One does not wait any longer; the request is withdrawn after the last."""
        with self._lock:
            if watch in self._watches:
                self._watches.remove(watch)
            if self._watches or self.done.is_set():
                return
        self.finish(None, ClosedRight(f"nobody waits for {self.about} any longer", task=self.right.task.label))
        self.withdraw()

    def withdraw(self) -> None:
        """Take the request back from the kernel."""
        try:
            # By its name, which stays if the task has other references of the right.
            previous = self._replace(c.MACH_PORT_NULL, 0)
            if previous is not None:
                self._pass_on(previous)
        except MachError:
            # The right, the task or the daemon is gone, and the request with it.
            pass
        finally:
            self.attendant.dismiss(self)

    def _pass_on(self, previous: SendOnceRight) -> None:
        """Give up what the kernel had to tell by; if that is somebody else's, who asked later, it has it again."""
        # The same port has the same label; the name in it is no other port's in this task.
        label = f"watches by {self.port.name:#x}"
        self.port.set_label(label)
        if previous.label == label:
            previous.close()
            return
        # Where senders are waited for, one was there, unless nobody has made one yet.
        between = self._replace(previous.name, 1)
        previous.gone("used")
        if between is not None:
            between.close()

    def _replace(self, notify: int, sync: int) -> SendOnceRight | None:
        """Let the kernel tell by another send-once right, or by none; the one it had."""
        from machport.face.rights import SendOnceRight

        task = self.right.task
        previous = task.calls.mach_port_request_notification(
            task.name, self.right._name, self.variant, sync, notify, c.MACH_MSG_TYPE_MOVE_SEND_ONCE
        )
        return None if previous in (c.MACH_PORT_NULL, c.MACH_PORT_DEAD) else SendOnceRight(task, previous)

    def arrive(self, message: Message) -> None:
        """Something came to the port."""
        if type(message) in (PortDeletedNotification, SendOnceNotification) or not isinstance(message, Notification):
            message.close()
            says = f"{self.about} will not be told of: the right was given up or moved, or others asked for it"
            self.finish(None, ClosedRight(says, task=self.right.task.label))
            self.attendant.dismiss(self)
            return
        try:
            self.finish(message, None)
        finally:
            self.attendant.dismiss(self)

    def finish(self, notice: Notification | None, error: MachError | None) -> None:
        """It is over: with the notification, or because none will come.

        Raises:
            BaseException: a callback raised what is no ``Exception``; the others were called as well.
        """
        with self._lock:
            if self.done.is_set():
                return
            self.notice, self.error = notice, error
            self.done.set()
            watches, self._watches = self._watches, []
        ending: BaseException | None = None
        for watch in watches:
            if watch.callback is not None and notice is not None:
                try:
                    watch.callback(notice)
                except Exception:
                    self.log_failure()
                except BaseException as raised:
                    ending = raised
        if ending is not None:
            raise ending

    def log_failure(self) -> None:
        """Tell of what a callback has just raised."""
        import logging

        logging.getLogger("machport").exception("what was to be called for %s failed", self.about)


class Attendant:
    """Whoever receives what the requests of a task bring.

    A dead name is asked for once, however many watch for it; the others are for the one that has the receive right.
    """

    def __init__(self, task: AnyTask) -> None:
        self.task = task
        self._dead_names: dict[int, Request] = {}
        self._lock = threading.Lock()

    def begin(self, right: Right, variant: int, sync: int, callback: Callback | None) -> Watch:
        """Ask for a notification, or watch for one that was asked for."""
        if callback is not None and not callable(callback):
            raise InvalidArgument(f"{callback!r} cannot be called; give a function, or nothing and wait()")
        if getattr(getattr(callback, "__code__", None), "co_flags", 0) & _IS_COROUTINE:
            raise InvalidArgument(f"{callback!r} is a coroutine function, which nobody would run; give an ordinary one")
        shared = variant == c.MACH_NOTIFY_DEAD_NAME
        with self._lock:
            request = self._dead_names.get(right.name) if shared else None
            watch = None if request is None else request.watch(callback)
            if watch is not None:
                return watch
            request = Request(self, right, variant)
            watch = request.watch(callback)
            assert watch is not None
            if shared:
                self._dead_names[right.name] = request
            try:
                self.attend(request)
                request.register(sync)
            except BaseException:
                self._dead_names.pop(right.name, None)
                self.dismiss(request)
                raise
            return watch

    def dismiss(self, request: Request) -> None:
        """Nothing more is to come of a request."""
        name = request.right._name
        if self._dead_names.get(name) is request:
            del self._dead_names[name]
        request.port.close()

    def attend(self, request: Request) -> None:
        """From now on receive from the port of a request, until it is dismissed."""
        raise NotImplementedError

    def wait(self, request: Request, timeout: float | None) -> None:
        """Let the thread wait until the request is done."""
        raise InvalidArgument("a watch of a task of machport.aio is awaited: await watch")

    def awaited(self, watch: Watch) -> Generator[Any, None, Any]:
        """Let the coroutine wait until the watch is done; its result."""
        raise InvalidArgument(
            "a watch of an ordinary task is waited for: watch.wait(); machport.aio has those to await"
        )


class ThreadAttendant(Attendant):
    """Receives in a thread of its own, which also calls the callbacks."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._task = task
        self._requests: dict[int, Request] = {}
        self._set: PortSet | None = None

    def attend(self, request: Request) -> None:
        self._requests[request.port.name] = request
        if self._set is None:
            self._set = self._task.port_set()
            self.begin_thread(self._receive, self._set)
        self._set.add(request.port)

    def begin_thread(self, receive: Callable[[PortSet], None], pset: PortSet) -> None:
        """Let ``receive(pset)`` run in a thread of its own."""
        name = f"notifications of {self.task.label}"
        threading.Thread(target=receive, args=(pset,), name=name, daemon=True).start()

    def dismiss(self, request: Request) -> None:
        self._requests.pop(request.port._name, None)
        super().dismiss(request)

    def wait(self, request: Request, timeout: float | None) -> None:
        request.done.wait(timeout)

    def _receive(self, pset: PortSet) -> None:
        try:
            while True:
                message = pset.receive()
                request = self._requests.get(message.port)
                if request is None:
                    message.close()
                    continue
                try:
                    request.arrive(message)
                except MachError:
                    raise
                except BaseException:
                    # ``sys.exit`` would end this thread only, and the watches of others with it.
                    request.log_failure()
        except MachError as error:
            for request in list(self._requests.values()):
                request.finish(None, error)
