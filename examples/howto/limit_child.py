"""A child that may have ten names, and asks for more: it is refused, and its parent goes on."""

from contextlib import ExitStack

import machport
from machport import Limits, SendRight


def greedy(answers: SendRight) -> None:
    with ExitStack() as ports:
        try:
            while True:
                ports.enter_context(machport.task_self().allocate())
        except machport.LimitReached as error:
            answers.send(str(error.says).encode())


if __name__ == "__main__":
    with machport.Task() as task, task.allocate() as answers:
        with task.spawn(greedy, answers.make_send().move(), limits=Limits(names=10)):
            print(answers.receive(timeout=30).body.decode())
        print(task.limits().names, "names for its parent")
