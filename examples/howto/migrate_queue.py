"""Many producers and one consumer, as with multiprocessing.Queue(maxsize=4), that ends when the producers have."""

import os
import pickle
import signal

import machport


def produce(queue: machport.SendRight, number: int) -> None:
    for index in range(3):
        queue.send(pickle.dumps({"producer": number, "index": index}))  # put(): waits while four messages wait
    if number == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    taken = []
    with machport.Task() as task, task.allocate(qlimit=4) as queue:
        for number in range(2):
            task.spawn(produce, queue.make_send().move(), number)
        queue.request_no_senders(queue)  # instead of a None for each producer
        for message in queue:  # get()
            if isinstance(message, machport.NoSendersNotification):
                break
            taken.append(pickle.loads(message.body))
    print(sorted((entry["producer"], entry["index"]) for entry in taken))


if __name__ == "__main__":
    main()
