"""Plays a trace of a daemon: every call on its kernel once more, in the same order.

Beside the kernel there is what answers calls by itself and is not traced further: the service of names, and tasks and
rights that wait for a process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from urllib.parse import unquote

from machport.abi import transcript as words
from machport.abi import traps as t
from machport.abi.errors import ProtocolError
from machport.carrier import hello
from machport.kernel import ports, tasks
from machport.kernel.copyout import take_back
from machport.kernel.kernel import Kernel
from machport.kernel.messages import abandon, collect, expire, interrupt
from machport.kernel.refusal import Refusal
from machport.kernel.task import Task
from machport.kernel.waiter import Result, Waiter
from machport.replay.player import Divergence
from machport.replay.transcript import Scenario, Step, TranscriptError
from machport.server.bootstrap import Bootstrap
from machport.server.children import Children
from machport.server.dispatch import Answer, answer_parts, carry_out_mach_msg, dispatch, forget
from machport.server.obituaries import Obituaries
from machport.server.tracestate import NO_FILE, State

#: Receptions that may still go back; a daemon knows of fewer that were not read.
_RECEPTIONS_MAX: Final = 1 << 16
_GIVE_UP: Final[dict[str, Callable[[Kernel, Waiter], None]]] = {
    "expire": expire,
    "interrupt": interrupt,
    "abandon": abandon,
}


class Player:
    """A kernel that does again what a trace tells."""

    def __init__(self) -> None:
        kernel = Kernel()
        self._begin(kernel, Bootstrap(kernel))
        self._tasks: dict[int, Task] = {}
        #: The number of the task that was met last.
        self._met = 0
        self._waits: dict[int, Waiter] = {}
        self._waited = 0
        self._receptions: dict[int, Result] = {}
        self._received = 0
        #: What the next ticket was when the trace was written: there it was random.
        self._ticket = bytes(hello.TICKET_SIZE)
        self._meet()

    def _begin(self, kernel: Kernel, bootstrap: Bootstrap) -> None:
        self.kernel = kernel
        self.bootstrap = bootstrap
        obituaries = Obituaries(lambda *_: False, lambda _: None, 0, lambda: 0.0)
        self._children = Children(kernel, obituaries, lambda *_: True, lambda _: None, self._new_ticket)

    def _resume(self, word: str) -> None:
        """Go on from the state in which a daemon was when the trace began."""
        state = State(word)
        self._begin(state.kernel, state.bootstrap)
        children, restoring = state.children
        self._children.resume(children, restoring)
        self._tasks, self._met = {task.number: task for task in state.tasks}, 0
        self._meet()
        for waiter in state.waiting:
            self._waited += 1
            self._waits[self._waited] = waiter
            waiter.owner = self._waited
        for result in state.unread:
            self._received += 1
            self._receptions[self._received] = result

    def perform(self, step: Step) -> list[str]:
        """Carry out one step; its result and detail lines.

        Raises:
            TranscriptError: the step or its arguments are not of the format.
        """
        try:
            got = [self._perform(step)]
            if len(step.expected) > 1 or step.operation == "collect":
                got += self._collect()
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, ProtocolError, Refusal) as error:
            raise TranscriptError(f"line {step.line}: {str(step)[:200]}: expected other arguments: {error!r}") from None
        for released in self.kernel.take_released():
            if isinstance(released, Task):
                self._children.forget(released)
        self._meet()
        return got

    def _perform(self, step: Step) -> str:
        operation, given = step.operation, step.arguments
        if operation == "collect":
            return words.SUCCESS
        if operation == "state":
            self._resume(given[0])
            return words.SUCCESS
        if operation == "task":
            tasks.create_task(
                self.kernel, unquote(given[0]), tuple(words.read_numbers(given[1])), bootstrap=self.bootstrap.port
            )
            return words.SUCCESS
        task = self._tasks[step.task]
        if operation == "claimed":
            self._children.forget(task)
            task.label, task.tokens = unquote(given[0]), tuple(words.read_numbers(given[1]))
        elif operation == "limits":
            quota = task.space.quota
            assert quota is not None
            task.space.limit, messages, size, quota.sending_max = words.read_numbers(given[0])
            quota.limit_to(messages, size)
        elif operation == "end":
            tasks.task_terminate(self.kernel, task)
        elif operation == "take_back":
            take_back(self.kernel, task, self._receptions.pop(int(given[0].removeprefix("r"))))
        elif operation == "unmade":
            ports.mach_port_destroy(self.kernel, task, int(given[0], 0))
        elif operation == "serve":
            self.bootstrap.serve()
        elif operation in _GIVE_UP:
            _GIVE_UP[operation](self.kernel, self._waits[int(given[0].removeprefix("w"))])
        else:
            return self._trap(task, step, dict(word.split("=", 1) for word in given))
        return words.SUCCESS

    def _trap(self, task: Task, step: Step, fields: dict[str, str]) -> str:
        payload = words.read_trap(step.operation, fields)
        number = t.number_of(payload)
        if number == t.MACH_MSG:
            waiter = carry_out_mach_msg(self.kernel, task, payload)
            if waiter.result is not None:
                return self._result(waiter.result)
            self._waited += 1
            self._waits[self._waited] = waiter
            waiter.owner = self._waited
            return f"waits w{self._waited}"
        if number == t.FORGET.number:
            forget(self.kernel, task, payload)
            return words.SUCCESS
        try:
            answer = self._other(task, number, payload, [NO_FILE] * int(fields.get("files", "0")), step)
        except Refusal as refusal:
            answer = Answer(t.pack_refusal(refusal.code, refusal.rule, refusal.says))
        return " ".join(words.write_answers(number, [b"".join(answer.parts)]))

    def _other(self, task: Task, number: int, payload: bytes, files: list[int], step: Step) -> Answer:
        if number == t.TASK_CREATE.number:
            return self._children.create(task, t.TASK_CREATE.unpack(payload)[0][0])
        if number == t.DEPOSIT.number:
            code, *ticket = step.expected[0].split()
            if code == words.SUCCESS:
                self._ticket = b"".join([int(word, 0).to_bytes(4, "little") for word in ticket])
            return self._children.deposit(task, *t.DEPOSIT.unpack(payload)[0])
        if number == t.CLAIM.number:
            ticket_words = t.CLAIM.unpack(payload)[1]
            return self._children.claim_right(task, b"".join([word.to_bytes(4, "little") for word in ticket_words]))
        return dispatch(self.kernel, task, payload, files)

    def _new_ticket(self) -> bytes:
        return self._ticket

    def _collect(self) -> list[str]:
        found = []
        for waiter in collect(self.kernel):
            if waiter is self.bootstrap.waiter:
                found.append("bootstrap")
            elif waiter.result is None:
                found.append(f"w{waiter.owner} waits")
            else:
                self._waits.pop(waiter.owner, None)  # type: ignore[call-overload]
                found.append(f"w{waiter.owner} {self._result(waiter.result)}")
        return found

    def _result(self, result: Result) -> str:
        if result.received is not None:
            self._received += 1
            self._receptions[self._received] = result
            self._receptions.pop(self._received - _RECEPTIONS_MAX, None)
        return words.write_message_answer(t.unpack_msg_answer(b"".join(answer_parts(result))))

    def _meet(self) -> None:
        """Learn the numbers of tasks that are new."""
        for task in reversed(self.kernel.tasks):
            if task.number <= self._met:
                break
            self._tasks[task.number] = task
        self._met = self.kernel.tasks_made


def play(scenario: Scenario) -> tuple[int, Divergence | None]:
    """Play a trace up to its first divergence, or to where records of it were lost.

    Returns:
        How many steps were carried out, and the divergence.
    """
    player = Player()
    for count, step in enumerate(scenario.steps, 1):
        if step.operation == "lost":
            return count - 1, None
        got = player.perform(step)
        if got != step.expected:
            return count, Divergence(scenario.name, step, got)
    return len(scenario.steps), None
