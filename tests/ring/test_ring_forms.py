"""Both forms are there, agree on their numbers, and the weaker one says where it must not be used."""

from __future__ import annotations

import mmap
import re
from pathlib import Path

import pytest
from ring_forms import ROOM, SANITIZED, interpreted

from machport import ring
from machport.abi.errors import QueueMisuse
from machport.ring import Ring, layout, memory, queue


def test_the_build_has_made_the_native_form() -> None:
    assert ring.is_compiled()


def test_the_form_under_test_is_sanitized_if_and_only_if_the_run_is() -> None:
    """So `make test-asan` tries what it has built, and everybody else tries what is used."""
    assert (b"__asan_report" in Path(queue.__file__).read_bytes()) == SANITIZED


def test_the_same_source_runs_interpreted_and_says_so() -> None:
    assert not interpreted.is_compiled()


def test_the_interpreted_ring_refuses_memory_between_processes() -> None:
    """Q12: Python alone has no memory order."""
    with mmap.mmap(-1, 4096) as mapping, pytest.raises(QueueMisuse, match="build the native part") as refusal:
        interpreted.Ring(mapping, 64)
    assert refusal.value.rule == "Q12"


def test_the_interpreted_ring_serves_one_process() -> None:
    assert interpreted.Ring(bytearray(76), 64, one_process=True).enqueue(b"entry") == layout.WAKE


def test_both_forms_have_the_same_public_names() -> None:
    names = {name for name in dir(interpreted.Ring) if not name.startswith("_")}
    names |= {name for name in vars(interpreted.Ring(bytearray(12), 0, one_process=True)) if name[0] != "_"}
    assert names == {name for name in dir(Ring) if not name.startswith("_")}


@pytest.mark.parametrize("name", [n for n in dir(Ring) if not n.startswith("_")])
def test_every_public_method_is_documented(name: str) -> None:
    if callable(getattr(Ring, name)):
        assert getattr(Ring, name).__doc__


def test_the_c_numbers_are_the_python_numbers() -> None:
    text = (ROOM / "layout.pxd").read_text()
    numbers = {name: int(value, 0) for name, value in re.findall(r"^    (\w+) = (\S+)$", text, re.M)}
    defines = re.findall(r"#define MACHPORT_(\w+) (\w+)ull", text)
    numbers |= {name: int(value, 0) for name, value in defines}
    assert numbers == {name: value for name, value in vars(layout).items() if name.isupper()}


def test_both_forms_of_memory_access_have_the_same_functions() -> None:
    text = (ROOM / "memory.pxd").read_text()
    native = set(re.findall(r'^cdef inline .*?[ *](\w+)\(|^    \w+ (\w+) "machport_', text, re.M))
    names = {name for pair in native for name in pair if name}
    functions = {n for n, v in vars(memory).items() if callable(v) and v.__module__ == memory.__name__}
    assert names == functions
