"""A word goes slack when the thread that holds it ends, and nothing that its holder does harms who waits."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import importlib.util
import mmap
import os
import re
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from ring_forms import ROOM

from machport.ring import lifeline, robust
from machport.ring.lifeline import Watch, Word

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

#: Seconds after which what a test waits for will not come.
PATIENCE = 30.0
WORD = struct.Struct("=I")
HELD = 0x80000001
PAGE = mmap.PAGESIZE


class Holder:
    """A forked child that holds a word and then does what it is told: nothing, as a rule."""

    def __init__(self, act: Callable[[], object] = signal.pause) -> None:
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                theirs, offset = lifeline.hold()
                os.write(writing, f"{theirs} {offset}\n".encode())
                act()
            finally:
                os._exit(0)
        os.close(writing)
        with open(reading) as said:
            theirs, offset = map(int, said.readline().split())
        self.memory = os.open(f"/proc/{self.pid}/fd/{theirs}", os.O_RDWR)
        self.offset = offset
        self.word = Word(self.memory, offset)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        os.close(self.memory)
        with contextlib.suppress(ProcessLookupError):
            self.kill()
        os.waitpid(self.pid, 0)


@pytest.fixture
def hold() -> Iterator[Callable[..., Holder]]:
    holders: list[Holder] = []

    def make(act: Callable[[], object] = signal.pause) -> Holder:
        holders.append(Holder(act))
        return holders[-1]

    yield make
    for holder in holders:
        holder.close()


@pytest.fixture
def hostile() -> Iterator[tuple[mmap.mmap, int]]:
    """A page that looks as if a thread held its first word; the mapping and the descriptor."""
    memory = page_of_memory()
    with mmap.mmap(memory, PAGE) as mapping:
        WORD.pack_into(mapping, 0, HELD)
        yield mapping, memory
    os.close(memory)


def page_of_memory(size: int = PAGE, seals: int = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW) -> int:
    memory = os.memfd_create("page", os.MFD_ALLOW_SEALING)
    os.truncate(memory, size)
    os.pwrite(memory, WORD.pack(HELD), 0)
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seals)
    return memory


def watch_of(*words: Word) -> Watch:
    watch = Watch()
    for word in words:
        assert watch.add(word)
    return watch


def test_a_word_goes_slack_when_its_process_is_killed(hold: Callable[..., Holder]) -> None:
    first, second = hold(), hold()
    watch = watch_of(first.word, second.word)
    second.kill()
    assert watch.wait(PATIENCE) == [second.word]
    assert lifeline.is_slack(second.memory, second.offset)
    assert not lifeline.is_slack(first.memory, first.offset)
    first.kill()
    assert watch.wait(PATIENCE) == [first.word]
    assert len(watch) == 0


def test_a_word_goes_slack_when_its_process_exits(hold: Callable[..., Holder]) -> None:
    reading, writing = os.pipe()
    holder = hold(lambda: os.read(reading, 1))
    watch = watch_of(holder.word)
    os.write(writing, b"x")
    assert watch.wait(PATIENCE) == [holder.word]
    os.close(reading)
    os.close(writing)


def test_a_word_goes_slack_when_its_thread_ends() -> None:
    """Which is why it is a sign and no proof."""
    held: list[tuple[int, int]] = []
    end = threading.Event()
    ready = threading.Event()

    def run() -> None:
        held.append(lifeline.hold())
        ready.set()
        end.wait()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    [(memory, offset)] = held
    word = Word(memory, offset)
    watch = watch_of(word)
    assert watch.wait(0) == []
    end.set()
    assert watch.wait(PATIENCE) == [word]
    thread.join()
    os.close(memory)


def test_a_word_goes_slack_when_its_process_starts_another_program(hold: Callable[..., Holder]) -> None:
    reading, writing = os.pipe()
    holder = hold(lambda: os.read(reading, 1) and os.execv("/bin/sleep", ["sleep", "1000"]))
    watch = watch_of(holder.word)
    os.write(writing, b"x")
    assert watch.wait(PATIENCE) == [holder.word]
    assert os.waitpid(holder.pid, os.WNOHANG) == (0, 0)
    os.close(reading)
    os.close(writing)


def test_a_forked_child_neither_holds_nor_lets_go_of_its_parents_word() -> None:
    memory, offset = lifeline.hold()
    watch = watch_of(Word(memory, offset))
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert watch.wait(0) == []
    assert len(watch) == 1
    os.close(memory)


def test_a_child_that_shares_memory_until_it_starts_a_program_does_not_let_go_of_its_parents_word() -> None:
    memory, offset = lifeline.hold()
    watch = watch_of(Word(memory, offset))
    subprocess.run(["true"], check=True)
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
    assert watch.wait(0) == []
    assert len(watch) == 1
    os.close(memory)


def test_the_page_is_not_mapped_in_a_forked_child() -> None:
    """Its own mutexes must not be linked into its parent's page."""
    memory, _ = lifeline.hold()
    name = f"{os.fstat(memory).st_ino} "
    child = os.fork()
    if child == 0:
        os._exit(any(name in line for line in Path("/proc/self/maps").read_text().splitlines()))
    assert os.waitpid(child, 0)[1] == 0
    assert any(name in line for line in Path("/proc/self/maps").read_text().splitlines())
    os.close(memory)


def test_a_held_word_has_the_threads_number_and_a_flag_for_the_system() -> None:
    memory, offset = lifeline.hold()
    assert Word(memory, offset).value == threading.get_native_id() | 0x80000000
    os.close(memory)


def test_two_who_wait_for_one_word_are_both_woken(hold: Callable[..., Holder]) -> None:
    """The system wakes one; whoever it is wakes the others."""
    holder = hold()
    watches = [watch_of(Word(holder.memory, holder.offset)) for _ in range(3)]
    signs: list[int] = []
    threads = [threading.Thread(target=lambda w=watch: signs.append(len(w.wait(PATIENCE)))) for watch in watches]
    for thread in threads:
        thread.start()
    holder.kill()
    for thread in threads:
        thread.join()
    assert signs == [1, 1, 1]


def test_many_words_that_go_slack_at_once_are_all_seen(hold: Callable[..., Holder]) -> None:
    holders = [hold() for _ in range(20)]
    watch = watch_of(*(holder.word for holder in holders))
    for holder in holders:
        holder.kill()
    seen: list[Word] = []
    while len(seen) < 20:
        signs = watch.wait(PATIENCE)
        assert signs
        seen += signs
    assert {id(word) for word in seen} == {id(holder.word) for holder in holders}


def test_a_word_that_went_slack_before_it_is_waited_for_is_seen(hold: Callable[..., Holder]) -> None:
    holder = hold()
    holder.kill()
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
    assert watch_of(holder.word).wait(PATIENCE) == [holder.word]


def test_a_watch_has_room_for_127_words(hostile: tuple[mmap.mmap, int]) -> None:
    words = [Word(hostile[1], 0) for _ in range(128)]
    watch = watch_of(*words[:127])
    assert not watch.add(words[127])
    assert watch.wait(0) == []
    watch.remove(words[5])
    watch.remove(words[5])
    assert watch.add(words[127])
    WORD.pack_into(hostile[0], 0, 0)
    seen = watch.wait(PATIENCE)
    assert {id(word) for word in seen} == {id(word) for word in words[:5] + words[6:]}


def test_the_bell_lets_wait_return_now_or_when_it_is_called_next() -> None:
    watch = Watch()
    watch.ring()
    assert watch.wait() == []
    threading.Thread(target=watch.ring).start()
    assert watch.wait() == []
    assert watch.wait(0) == []


@pytest.mark.parametrize("value", [0, HELD + 1, 0xFFFFFFFF, 0x40000000, HELD & 0x7FFFFFFF])
def test_a_word_that_is_changed_gives_one_sign_and_no_more(hostile: tuple[mmap.mmap, int], value: int) -> None:
    mapping, memory = hostile
    word = Word(memory, 0)
    watch = watch_of(word)
    WORD.pack_into(mapping, 0, value)
    assert watch.wait(PATIENCE) == [word]
    WORD.pack_into(mapping, 0, HELD)
    assert watch.wait(0) == []


def test_a_word_that_is_taken_away_is_a_sign_and_no_fault(
    hostile: tuple[mmap.mmap, int], hold: Callable[..., Holder]
) -> None:
    """A hole is punched into the page, which its seals allow."""
    word, other = Word(hostile[1], 0), hold()
    watch = watch_of(word, other.word)
    punch_hole_into(hostile[1])
    assert watch.wait(PATIENCE) == [word]
    other.kill()
    assert watch.wait(PATIENCE) == [other.word]


def punch_hole_into(memory: int) -> None:
    keep_size, punch_hole = 1, 2
    offset = ctypes.c_long
    assert not ctypes.CDLL(None).fallocate(memory, keep_size | punch_hole, offset(0), offset(PAGE))


def test_memory_that_is_not_a_sealed_page_is_refused(tmp_path: Path) -> None:
    """Else a page could be taken away, or come from a file system that its owner serves, as slowly as it likes."""
    shrink, grow = fcntl.F_SEAL_SHRINK, fcntl.F_SEAL_GROW
    (tmp_path / "file").write_bytes(WORD.pack(HELD).ljust(PAGE, b"\0"))
    reading, writing = os.pipe()
    os.close(writing)
    memories = [
        page_of_memory(seals=0),
        page_of_memory(seals=shrink),
        page_of_memory(seals=grow),
        page_of_memory(size=PAGE - 4),
        page_of_memory(size=2 * PAGE),
        page_of_memory(size=4),
        os.open(tmp_path / "file", os.O_RDWR),
        reading,
    ]
    for memory in memories:
        with pytest.raises(ValueError, match="sealed memfd of one page"):
            Word(memory, 0)
        os.close(memory)


@pytest.mark.parametrize("offset", [1, 2, PAGE - 3, PAGE, 0xFFFFFFFC, 0xFFFFFFFF])
def test_a_word_outside_the_page_is_refused(hostile: tuple[mmap.mmap, int], offset: int) -> None:
    with pytest.raises(ValueError, match="there is no word at offset"):
        Word(hostile[1], offset)


@pytest.mark.parametrize("value", [0, 1, 0x80000000, 0xC0000001, 0x40000000])
def test_a_word_that_nobody_holds_is_refused(hostile: tuple[mmap.mmap, int], value: int) -> None:
    WORD.pack_into(hostile[0], 0, value)
    with pytest.raises(ValueError, match="not how a thread holds it"):
        Word(hostile[1], 0)


def test_words_leave_no_mapping_behind(hostile: tuple[mmap.mmap, int]) -> None:
    name = f"{os.fstat(hostile[1]).st_ino} "
    watch = Watch()
    for _ in range(3):
        word = Word(hostile[1], 0)
        watch.add(word)
        watch.remove(word)
    del word
    assert sum(name in line for line in Path("/proc/self/maps").read_text().splitlines()) == 1


def test_threads_left_are_those_of_a_process_whose_first_thread_is_exiting(hold: Callable[..., Holder]) -> None:
    holder = hold()
    assert lifeline.threads_left(holder.pid) == 0
    holder.kill()
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
    assert lifeline.threads_left(holder.pid) == 1
    with pytest.raises(OSError) as gone:
        lifeline.threads_left(0x7FFFFFFF)
    assert gone.value.errno == errno.ENOENT


def load_interpreted() -> ModuleType:
    name = "machport_ring_lifeline_interpreted"
    spec = importlib.util.spec_from_file_location(name, ROOM / "lifeline.py")
    assert spec is not None and spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_interpreted_form_says_that_it_cannot() -> None:
    interpreted = load_interpreted()
    assert lifeline.is_compiled()
    assert not interpreted.is_compiled()
    memory = page_of_memory()
    for call in (interpreted.hold, interpreted.Watch, lambda: interpreted.Word(memory, 0)):
        with pytest.raises(OSError, match="native part"):
            call()
    os.close(memory)


def test_both_forms_have_the_same_functions() -> None:
    text = (ROOM / "robust.pxd").read_text()
    native = {name for name in re.findall(r'^    (?!ctypedef)\w.*?[ *](\w+) "', text, re.M) if name != "words"}
    assert native == {name for name, value in vars(robust).items() if callable(value) or name.isupper()} - {
        "NATIVE",
        "Any",
        "Final",
    }
