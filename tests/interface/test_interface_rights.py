"""Rights, data queues and memory among arguments and results: who gets them owns them, and nothing leaks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from actors import PATIENCE
from interface_actors import Served, kinds, nothing_left
from numpy.typing import NDArray

import machport


class Job(msgspec.Struct):
    name: str
    notify: machport.SendRight | None = None


class Carrier:
    def keep(self, right: machport.SendRight) -> None:
        raise NotImplementedError

    def keep_any(self, right: machport.Right) -> str:
        raise NotImplementedError

    def keep_receive(self, right: machport.ReceiveRight) -> None:
        raise NotImplementedError

    def keep_once(self, right: machport.SendOnceRight) -> None:
        raise NotImplementedError

    def answer_by(self, text: bytes, jobs: list[Job], more: dict[str, list[machport.SendRight]]) -> int:
        raise NotImplementedError

    def opened(self) -> tuple[machport.SendRight, machport.ReceiveRight]:
        raise NotImplementedError

    def fails(self, right: machport.SendRight, queue: machport.DataQueue | None = None) -> None:
        raise NotImplementedError

    def bad_result(self, kind: str) -> machport.SendRight:
        raise NotImplementedError

    def fill(self, queue: machport.DataQueue, entries: list[bytes]) -> None:
        raise NotImplementedError

    def open_queue(self, size: int) -> machport.DataQueue:
        raise NotImplementedError

    def sum(self, array: NDArray[np.float64]) -> float:
        raise NotImplementedError

    def doubled(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        raise NotImplementedError

    def region(self, data: memoryview, other: memoryview | None = None) -> memoryview:
        raise NotImplementedError

    def regions(self, data: list[memoryview]) -> list[bytes]:
        raise NotImplementedError

    def anything(self, value: Any) -> None:
        raise NotImplementedError

    @machport.oneway
    def tell(self, right: machport.SendOnceRight, fail: bool) -> None:
        raise NotImplementedError


class Keeper:
    """Keeps what it gets in ``kept``."""

    def __init__(self, task: machport.Task) -> None:
        self.task = task
        self.kept: list[Any] = []
        self.before: Callable[[], object] = int

    def keep(self, right: machport.SendRight) -> None:
        self.kept.append(right)

    keep_receive = keep_once = keep

    def keep_any(self, right: machport.Right) -> str:
        self.kept.append(right)
        return type(right).__name__

    def answer_by(self, text: bytes, jobs: list[Job], more: dict[str, list[machport.SendRight]]) -> int:
        rights = [job.notify for job in jobs if job.notify is not None] + [r for rs in more.values() for r in rs]
        for right in rights:
            with right:
                right.send(text)
        return len(rights)

    def opened(self) -> tuple[machport.SendRight, machport.ReceiveRight]:
        self.before()
        port = self.task.allocate()
        return port.make_send().move(), port.move()

    def fails(self, right: machport.SendRight, queue: machport.DataQueue | None = None) -> None:
        raise ValueError("after it was given")

    def bad_result(self, kind: str) -> Any:
        self.kept.append(port := self.task.allocate())
        right = port.make_send()
        self.kept.append(right)
        if kind == "as it is":
            return right
        if kind == "another kind":
            return port.move()
        if kind == "twice":
            return [right.move(), right.move()]
        transfer = right.move()
        right.close()
        return transfer

    def fill(self, queue: machport.DataQueue, entries: list[bytes]) -> None:
        with queue:
            for entry in entries:
                queue.enqueue(entry)

    def open_queue(self, size: int) -> machport.DataQueue:
        self.before()
        queue = machport.DataQueue(size)
        queue.enqueue(b"first")
        self.kept.append(queue)
        return queue.move_consumer()

    def sum(self, array: NDArray[np.float64]) -> float:
        self.kept.append(array)
        return float(array.sum())

    def doubled(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        doubled: np.ndarray[Any, Any] = array + array
        return doubled

    def region(self, data: memoryview, other: memoryview | None = None) -> memoryview:
        assert data.readonly
        self.kept.append(other)
        return data[::-1].tobytes() if other is None else other  # type: ignore[return-value]

    def regions(self, data: list[memoryview]) -> list[bytes]:
        assert all(part.readonly for part in data)
        return [bytes(part) for part in data]

    def anything(self, value: Any) -> None: ...

    def tell(self, right: machport.SendOnceRight, fail: bool) -> None:
        if fail:
            raise ValueError("not told")
        right.send(b"told")


@pytest.fixture
def keeper(task: machport.Task) -> Keeper:
    return Keeper(task)


@pytest.fixture
def served(task: machport.Task, keeper: Keeper) -> Iterator[Served]:
    with Served(task, Carrier, keeper) as served:
        yield served


@pytest.fixture
def carrier(served: Served) -> Carrier:
    carrier = machport.proxy(Carrier, served.right, timeout=PATIENCE)
    # It knows its server, and has a reply port.
    assert carrier.regions([]) == []
    return carrier


# Rights


def test_a_right_that_is_moved_is_the_servers(carrier: Carrier, task: machport.Task, keeper: Keeper) -> None:
    port = task.allocate()
    right = port.make_send()
    carrier.keep(right.move())

    assert right.closed
    (kept,) = keeper.kept
    assert type(kept) is machport.SendRight
    kept.send(b"by it")
    assert port.receive(PATIENCE).body == b"by it"


def test_every_kind_of_right_arrives_as_it_is(carrier: Carrier, task: machport.Task, keeper: Keeper) -> None:
    port, other = task.allocate(), task.allocate()
    carrier.keep_once(port.make_send_once().move())
    carrier.keep_receive(other.move())
    assert carrier.keep_any(port.make_send().move()) == "SendRight"
    assert carrier.keep_any(port.make_send_once().move()) == "SendOnceRight"
    assert [type(right).__name__ for right in keeper.kept[:2]] == ["SendOnceRight", "ReceiveRight"]
    assert not any(right.closed for right in keeper.kept)


def test_a_dead_name_arrives_only_where_any_right_may(carrier: Carrier, task: machport.Task, keeper: Keeper) -> None:
    port = task.allocate()
    right = port.make_send()
    port.close()
    with nothing_left(task), pytest.raises(machport.BadArguments, match="its port died on the way"):
        carrier.keep(right.copy())
    assert carrier.keep_any(right.copy()) == "DeadName"


def test_rights_are_found_wherever_they_are_among_the_arguments(carrier: Carrier, task: machport.Task) -> None:
    port = task.allocate(qlimit=10)
    right = port.make_send()
    with nothing_left(task):
        jobs = [Job("one", right.copy()), Job("none"), Job("two", right.copy())]
        assert carrier.answer_by(b"text", jobs, {"a": [right.copy(), right.copy()], "b": []}) == 4
    assert [port.receive(PATIENCE).body for _ in range(4)] == [b"text"] * 4


def test_rights_in_a_result_are_the_callers(carrier: Carrier, task: machport.Task) -> None:
    right, port = carrier.opened()
    right.send(b"to oneself")
    assert port.receive(PATIENCE).body == b"to oneself"


def test_a_right_as_it_is_another_kind_and_another_tasks_are_refused_and_stay(
    carrier: Carrier, served: Served, task: machport.Task
) -> None:
    other = machport.Task(label="other", path=task.path)
    with other, task.allocate() as port, port.make_send() as right, nothing_left(task):
        with pytest.raises(machport.InvalidArgument, match=r"right\.move\(\) or right\.copy\(\)"):
            carrier.keep(right)
        with pytest.raises(machport.InvalidArgument, match=r"give right\.move\(\):"):
            carrier.keep_receive(port)
        with pytest.raises(machport.BadArguments, match="Expected `SendRight`"):
            carrier.keep(port.move())  # type: ignore[arg-type]
        with pytest.raises(machport.BadArguments, match="no hint takes"):
            carrier.anything(right.copy())
        with pytest.raises(machport.BadArguments):
            carrier.keep(3)  # type: ignore[arg-type]
        with pytest.raises(machport.InvalidArgument, match="is not of task"):
            carrier.keep(other.allocate().make_send().move())
        with pytest.raises(machport.InvalidArgument, match="twice"):
            machport.proxy(Twice, served.right).take(port.move(), port.move())
        assert carrier.regions([]) == []


@machport.interface(name="Carrier")
class Twice:
    def take(self, one: machport.ReceiveRight, other: machport.ReceiveRight) -> None:
        raise NotImplementedError


def test_what_was_given_to_a_routine_that_failed_is_given_up(carrier: Carrier, task: machport.Task) -> None:
    with task.allocate() as port, machport.DataQueue(4096) as queue:
        with nothing_left(task), pytest.raises(ValueError, match="after it was given"):
            carrier.fails(port.make_send().move(), queue.move_producer())
        with pytest.raises(machport.PeerDied):
            queue.dequeue()


@pytest.mark.parametrize("kind", ["as it is", "another kind", "twice", "closed"])
def test_what_a_result_that_does_not_fit_would_move_stays_the_servers(
    carrier: Carrier, task: machport.Task, keeper: Keeper, kind: str
) -> None:
    with pytest.raises(machport.RemoteError, match="does not fit its hint"):
        carrier.bad_result(kind)
    port, right = keeper.kept
    assert not port.closed
    assert right.closed == (kind == "closed")
    assert carrier.regions([]) == []


def test_an_answer_that_nobody_waits_for_takes_its_rights_along(
    served: Served, carrier: Carrier, keeper: Keeper, task: machport.Task
) -> None:
    from machport.interfaces.definition import interface_of

    routines = interface_of(Carrier).routines
    before = kinds(task)
    for name, arguments in (("opened", []), ("open_queue", [4096])):
        answers = task.allocate()
        keeper.before = answers.close
        body = msgspec.msgpack.encode([None, *arguments])
        served.right.send(body, id=routines[name].id, reply_to=answers)
        assert carrier.regions([]) == []
        assert answers.closed
    assert kinds(task) == before
    with pytest.raises(machport.QueueMisuse):
        keeper.kept[0].dequeue()
    keeper.kept[0].close()


def test_a_one_way_call_brings_rights(carrier: Carrier, task: machport.Task) -> None:
    with task.allocate() as port:
        carrier.tell(port.make_send_once().move(), False)
        assert port.receive(PATIENCE).body == b"told"
        carrier.tell(port.make_send_once().move(), True)
        assert isinstance(port.receive(PATIENCE), machport.SendOnceNotification)


def test_a_file_arrives_as_a_send_right(carrier: Carrier, task: machport.Task, keeper: Keeper) -> None:
    with open("/dev/null") as file:
        carrier.keep(task.fileport(file).move())
    os.close(keeper.kept[0].open_file())


# Data queues


def test_an_end_of_a_queue_travels_as_an_argument(carrier: Carrier) -> None:
    with machport.DataQueue(4096) as queue:
        carrier.fill(queue.move_producer(), [b"one", b"two"])
        assert [bytes(entry) for entry in queue] == [b"one", b"two"]


def test_an_end_of_a_queue_travels_as_a_result(carrier: Carrier, keeper: Keeper) -> None:
    with carrier.open_queue(4096) as queue:
        assert queue.dequeue() == b"first"
    keeper.kept[0].close()


def test_a_queue_as_it_is_and_a_right_in_its_place_are_refused(carrier: Carrier, task: machport.Task) -> None:
    with machport.DataQueue(4096) as queue, task.allocate() as port, port.make_send() as right, nothing_left(task):
        with pytest.raises(machport.InvalidArgument, match=r"queue\.move_producer\(\)"):
            carrier.fill(queue, [])
        with pytest.raises(machport.BadArguments, match="Expected `DataQueue`"):
            carrier.fill(right.copy(), [])  # type: ignore[arg-type]
        with pytest.raises(machport.BadArguments, match="Expected `SendRight`"):
            carrier.keep(queue.move_producer())  # type: ignore[arg-type]
        queue.enqueue(b"still whole")
        assert queue.dequeue() == b"still whole"


def test_a_file_that_is_no_queue_is_refused_by_the_server(
    carrier: Carrier, served: Served, task: machport.Task
) -> None:
    with open("/dev/null") as file, nothing_left(task):
        forged = bytes([0x93, 0xC0, 0xD5, 1, 0x91, 0, 0x90])
        answer = call(served, "fill", forged, rights=[task.fileport(file).move()])
    assert answer[0] == -300


# Memory


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.arange(24.0).reshape(2, 3, 4).transpose(),
        np.array(3.0),
        np.zeros((0, 3)),
        np.arange(100_000.0)[::2],
    ],
)
def test_an_array_travels_out_of_line_and_arrives_read_only(
    carrier: Carrier, keeper: Keeper, array: NDArray[np.float64]
) -> None:
    assert carrier.sum(array) == array.sum()
    (kept,) = keeper.kept
    assert kept.shape == array.shape
    assert not kept.flags.writeable
    assert not kept.flags.owndata
    np.testing.assert_array_equal(kept, array)


@pytest.mark.parametrize("dtype", ["u1", "<i8", ">i4", "c16", "?", "S3", "U2"])
def test_arrays_of_many_types_come_back(carrier: Carrier, dtype: str) -> None:
    array = np.array([1, 0, 1]).astype(dtype)
    doubled = carrier.doubled(array)
    assert doubled.dtype == (array + array).dtype
    np.testing.assert_array_equal(doubled, array + array)


def test_moments_go_in_arrays(carrier: Carrier) -> None:
    array = np.array([5], "m8[s]")
    got = carrier.doubled(array)
    assert got.dtype == array.dtype
    assert got[0] == np.timedelta64(10, "s")


@pytest.mark.parametrize("array", [np.array([object()]), np.zeros(2, "i4,f8"), np.zeros(2, "i4"), [1.0], b"12345678"])
def test_an_array_of_another_type_is_refused(carrier: Carrier, task: machport.Task, array: Any) -> None:
    with nothing_left(task), pytest.raises(machport.BadArguments):
        carrier.sum(array)


@pytest.mark.parametrize("data", [b"", b"abc", b"x" * 1_000_000])
def test_a_view_travels_out_of_line_and_arrives_read_only(carrier: Carrier, keeper: Keeper, data: bytes) -> None:
    assert carrier.region(memoryview(data)) == data[::-1]
    got = carrier.region(memoryview(b"-"), memoryview(data))
    assert got.tobytes() == data
    assert got.readonly
    assert keeper.kept[0] is None
    assert keeper.kept[1].readonly


def test_views_within_other_values_look_into_the_message(carrier: Carrier) -> None:
    assert carrier.regions([memoryview(b"one"), memoryview(b"x" * 100_000)]) == [b"one", b"x" * 100_000]


def test_what_is_no_contiguous_view_is_refused(carrier: Carrier) -> None:
    for thing in ("text", 3, memoryview(b"abcd")[::2], None):
        with pytest.raises(machport.BadArguments):
            carrier.region(thing)  # type: ignore[arg-type]


# Forgeries


def call(served: Served, routine: str, body: bytes, **carried: Any) -> Any:
    """Code and text of the answer to a request that was made by hand."""
    from machport.interfaces.definition import interface_of

    message = served.right.call(body, id=interface_of(Carrier).routines[routine].id, timeout=PATIENCE, **carried)
    return msgspec.msgpack.decode(message.body)


RIGHT, REGION, ARRAY = 1, 2, 3
Ext = msgspec.msgpack.Ext


def place(code: int, *values: Any) -> Ext:
    return Ext(code, msgspec.msgpack.encode(list(values)))


@pytest.mark.parametrize(
    ("routine", "values", "rights", "regions"),
    [
        ("keep", [place(RIGHT, 1)], 1, 0),
        ("keep", [place(RIGHT, -1)], 1, 0),
        ("keep", [place(RIGHT, 2**63)], 1, 0),
        ("keep", [place(RIGHT)], 1, 0),
        ("keep", [place(RIGHT, 0, 0)], 1, 0),
        ("keep", [place(REGION, 0)], 1, 1),
        ("keep", [place(77, 0)], 1, 0),
        ("keep", [Ext(RIGHT, b"\xc1")], 1, 0),
        ("keep", [place(RIGHT, 0)], 2, 0),
        ("keep", [place(RIGHT, 0)], 1, 1),
        ("keep", [3], 1, 0),
        ("keep_receive", [place(RIGHT, 0)], 1, 0),
        ("answer_by", [b"", [], {"a": [place(RIGHT, 0), place(RIGHT, 0)]}], 1, 0),
        ("answer_by", [b"", [], {"a": [place(RIGHT, 0), 3]}], 1, 0),
        ("fill", [place(RIGHT, 0), []], 1, 0),
        ("regions", [[b"x"]], 1, 0),
        ("regions", [[place(REGION, 0)]], 0, 1),
        ("anything", [place(RIGHT, 0)], 1, 0),
        ("region", [b"inline", None], 0, 0),
        ("region", [place(REGION, 0), place(REGION, 0)], 0, 1),
        ("region", [place(REGION, 0), place(REGION, 1)], 0, 1),
        ("region", [place(RIGHT, 0), None], 1, 0),
        ("sum", [place(ARRAY, 0, "<f8", [2])], 0, 1),
        ("sum", [place(ARRAY, 0, "<f8", [-1])], 0, 1),
        ("sum", [place(ARRAY, 0, "<f8", [2**62, 4])], 0, 1),
        ("sum", [place(ARRAY, 0, "O", [1])], 0, 1),
        ("sum", [place(ARRAY, 0, "nonsense", [1])], 0, 1),
        ("sum", [place(ARRAY, 0, "<i8", [1])], 0, 1),
        ("sum", [place(ARRAY, 5, "<f8", [1])], 0, 1),
        ("sum", [place(ARRAY, 0, "<f8", [1] * 100)], 0, 1),
        ("sum", [place(REGION, 0)], 0, 1),
    ],
)
def test_a_forged_placeholder_is_refused_and_every_right_of_its_message_is_given_up(
    served: Served,
    carrier: Carrier,
    task: machport.Task,
    keeper: Keeper,
    routine: str,
    values: list[Any],
    rights: int,
    regions: int,
) -> None:
    with task.allocate() as port, port.make_send() as right:
        given = [right.copy() for _ in range(rights)]
        with nothing_left(task):
            references = task.calls.mach_port_get_refs(task.name, right.name, 0)
            body = msgspec.msgpack.encode([None, *values])
            answer = call(served, routine, body, rights=given, memory=[b"12345678"] * regions)
            assert answer[0] == -300
            assert carrier.regions([]) == []
            assert task.calls.mach_port_get_refs(task.name, right.name, 0) == references
    assert keeper.kept == []


def test_an_answer_with_forged_rights_is_refused_and_they_are_given_up(task: machport.Task) -> None:
    bodies = iter(
        [
            msgspec.msgpack.encode([0, ["Carrier", 1, 0]]),
            msgspec.msgpack.encode([0, [place(RIGHT, 0), place(RIGHT, 0)]]),
            msgspec.msgpack.encode([0, 3.5]),
        ]
    )

    with task.allocate() as port, port.make_send() as right, Answering(task, port, bodies):
        carrier = machport.proxy(Carrier, right, timeout=PATIENCE)
        with pytest.raises(machport.ReplyMismatch, match="named twice"):
            carrier.opened()
        with pytest.raises(machport.ReplyMismatch, match="carries rights"):
            carrier.sum(np.zeros(1))
        with nothing_left(task):
            pass
        references = task.calls.mach_port_get_refs(task.name, right.name, 0)
        assert references == 1


class Answering:
    """A thread that answers by hand, always with a right to its port."""

    def __init__(self, task: machport.Task, port: machport.ReceiveRight, bodies: Iterator[bytes]) -> None:
        import threading

        def run() -> None:
            for count, body in enumerate(bodies):
                request = port.receive(PATIENCE)
                request.reply(body, rights=[port.make_send().move()] if count else [])
                request.close()

        self._thread = threading.Thread(target=run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._thread.join(PATIENCE)
