"""The kernel's two forms from one source: which one runs, and that both say and count the same."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import machport
from machport.abi import constants, words
from machport.kernel import messages, phase, ports

PACKAGE = Path(machport.__file__).parent
PURE = os.environ.get("MACHPORT_PURE", "") not in ("", "0")
#: Sources with C types beside them, which are not just numbers and inline functions.
COMPILED = sorted(
    f"machport.{path.parent.name}.{path.stem}"
    for room in ("abi", "kernel", "replay")
    for path in (PACKAGE / room).glob("*.pxd")
    if path.stem not in ("constants", "phase", "words")
)

_FORMS = """
import importlib, machport, sys
print(machport.is_compiled())
for name in sys.argv[1:]:
    print(name, importlib.import_module(name).__file__)
"""


def files_of_a_new_process(pure: str) -> tuple[str, dict[str, str]]:
    """What ``is_compiled`` says, and the file of each module that can be compiled."""
    command = [sys.executable, "-c", _FORMS, *COMPILED, "machport.ring.queue"]
    environment = os.environ | {"MACHPORT_PURE": pure}
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    first, *lines = answer.stdout.splitlines()
    return first, dict(line.split(" ", 1) for line in lines)


def test_the_suite_runs_with_the_form_that_was_asked_for() -> None:
    """Compiled, unless MACHPORT_PURE is set: otherwise the suite would test what nobody uses."""
    assert machport.is_compiled() is not PURE
    assert str(messages.__file__).endswith(".py") is PURE


def test_the_compiled_form_is_compiled_throughout() -> None:
    said, files = files_of_a_new_process("0")
    assert said == "True"
    assert {name for name, file in files.items() if not file.endswith(".so")} == set()


def test_the_interpreted_form_is_interpreted_throughout_but_for_the_ring() -> None:
    """Although the compiled modules stand beside the sources."""
    said, files = files_of_a_new_process("1")
    assert said == "False"
    assert {name for name, file in files.items() if not file.endswith(".py")} == {"machport.ring.queue"}


# Numbers that stand twice


def numbers_of(name: str) -> Iterator[tuple[str, int]]:
    """The C numbers of a ``.pxd`` file."""
    text = (PACKAGE / name).read_text()
    for found, value in re.findall(r"^    ([A-Z]\w*) = (\S+)$", text, re.M):
        yield found, int(value, 0)
    for found, value in re.findall(r"#define MACHPORT_(\w+) (\w+)ll$", text, re.M):
        yield found, int(value, 0)


def numbers_in(module: ModuleType) -> dict[str, int]:
    return {name: value for name, value in vars(module).items() if name.isupper() and isinstance(value, int)}


def test_the_c_constants_are_those_of_python() -> None:
    """Every one of them: those of services and devices, which the kernel does not know, are not among them."""
    numbers = dict(numbers_of("abi/constants.pxd"))
    assert numbers == {
        name: value for name, value in numbers_in(constants).items() if not name.startswith("BOOTSTRAP_")
    }


def test_the_c_phases_are_those_of_python() -> None:
    assert dict(numbers_of("kernel/phase.pxd")) == numbers_in(phase)


def test_the_c_sizes_are_those_of_python() -> None:
    """NATIVE is what tells the forms apart; C has two more for its own arrays."""
    numbers = dict(numbers_of("abi/words.pxd"))
    assert numbers.pop("NATIVE") != words.NATIVE
    del numbers["TOKENS"]
    python = numbers_in(words)
    del python["NATIVE"]
    assert numbers == python


def test_both_forms_of_words_have_the_same_functions() -> None:
    text = (PACKAGE / "abi/words.pxd").read_text()
    native = set(re.findall(r"^cdef inline .*?(\w+)\(", text, re.M))
    assert native == {name for name, value in vars(words).items() if getattr(value, "__module__", "") == words.__name__}


# What only one form might do


def test_a_chain_of_any_length_is_dropped_without_depth() -> None:
    """A kernel that is forgotten: a hundred thousand messages in one queue, and as many ports asking each other."""
    code = """
from machport.abi import constants as c
from machport.kernel.message import new_message
from machport.kernel.port import new_port
first = new_port(None)
for _ in range(100_000):
    first.append(new_message(None, 0))
    next = new_port(None)
    next.pd_request = first
    first = next
port = new_port(None)
for _ in range(100_000):
    port.append(new_message(None, 0))
del first, next, port
print("dropped")
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "dropped\n"


@pytest.mark.skipif(PURE, reason="the interpreted form raises whatever Python raises")
def test_the_compiled_kernel_raises_where_there_is_nothing() -> None:
    """An attribute of None is an error, never a crash of the daemon."""
    with pytest.raises((AttributeError, TypeError)):
        ports.mach_port_allocate(None, None, constants.MACH_PORT_RIGHT_RECEIVE)  # type: ignore[arg-type]
