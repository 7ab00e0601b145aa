"""The kernel is pure, and rooms only look downstairs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import machport

PACKAGE = Path(machport.__file__).parent

#: What the kernel may import besides machport.abi and itself.
PURE = {"__future__", "abc", "collections", "dataclasses", "enum", "heapq", "typing"}

#: Modules that compiled ones make for themselves, without any file.
CYTHON = ("_cython_", "cython_runtime")

#: Each room, and the rooms that it may import.  Bottom first; whatever is not here may import everything below it.
ROOMS = {
    "abi": set(),
    "ring": {"abi"},
    "peer": {"abi", "ring"},
    "confinement": {"abi"},
    "kernel": {"abi"},
    "replay": {"abi", "kernel"},
    "dataqueue": {"abi", "ring", "peer"},
    "carrier": {"abi", "ring"},
    "server": {"abi", "ring", "peer", "kernel", "dataqueue", "carrier"},
    "client": {"abi", "ring", "peer", "dataqueue", "carrier"},
    "aio": {"abi", "ring", "confinement", "client", "face"},
    "tracing": {"abi", "kernel", "replay", "carrier", "server"},
}

#: The package's own ``__init__`` is the face of the house, so an empty package stands in for it.
_LOADED = """
import sys
package = type(sys)("machport")
package.__path__ = [sys.argv[1]]
sys.modules["machport"] = package
import {}
print(*sorted(sys.modules))
"""


def loaded_by(modules: str) -> set[str]:
    """Modules of a fresh interpreter that has imported some."""
    command = [sys.executable, "-I", "-S", "-c", _LOADED.format(modules), str(PACKAGE)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(answer.stdout.split())


def sources(room: str) -> Iterator[Path]:
    yield from sorted((PACKAGE / room).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Absolute names of all modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            assert node.module is not None
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def rooms_of(path: Path) -> set[str]:
    """Rooms of machport that a file imports from."""
    return {name.split(".")[1] for name in imported(path) if name.startswith("machport.")}


def test_importing_the_kernel_loads_nothing_that_does_io() -> None:
    """Nothing beyond what its pure parts of the standard library load themselves."""
    modules = ", ".join(f"machport.kernel.{path.stem}" for path in sources("kernel") if path.stem != "__init__")
    found = loaded_by(modules)
    assert "machport.kernel.messages" in found
    allowed = loaded_by("abc, collections, collections.abc, dataclasses, enum, heapq, struct, typing, __future__")
    assert {name for name in found - allowed if not name.startswith(("machport", *CYTHON))} == set()
    assert {name.split(".")[1] for name in found if name.startswith("machport.")} == {"abi", "kernel"}
    for impure in ("socket", "selectors", "threading", "time", "random", "subprocess", "asyncio", "io", "pathlib"):
        assert impure not in found - loaded_by("abc")


def test_the_kernel_imports_only_pure_modules() -> None:
    """Also inside functions."""
    for path in sources("kernel"):
        for name in imported(path):
            top = name.split(".")[0]
            assert top in PURE or name.startswith(("machport.abi", "machport.kernel")), f"{path}: {name}"


def test_the_kernel_has_no_state_of_its_own() -> None:
    """No global statement: a kernel is an object."""
    for path in sources("kernel"):
        for node in ast.walk(ast.parse(path.read_text())):
            assert not isinstance(node, ast.Global | ast.Nonlocal), path


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_below_it(room: str) -> None:
    """abi and ring carry the kernel; server and client never meet."""
    for path in sources(room):
        assert rooms_of(path) <= ROOMS[room] | {room}, f"{path}: {rooms_of(path)}"


def test_only_the_house_itself_is_above() -> None:
    """Every package is a room of the list, or one of those that may use them all."""
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages - set(ROOMS) <= {"face", "interfaces", "pool", "mach", "testing", "cli", "demo"}


def test_only_the_command_knows_what_tests_are_made_with() -> None:
    """The room for tests of users' protocols is above the face."""
    for path in PACKAGE.rglob("*.py"):
        if not {"testing", "cli"} & {path.parent.name}:
            assert "testing" not in rooms_of(path), path


def test_typed_calls_are_above_the_face_and_the_face_does_not_know_them() -> None:
    for room in ("face", "mach", *ROOMS):
        for path in sources(room):
            assert "interfaces" not in rooms_of(path), path
    for path in sources("interfaces"):
        assert rooms_of(path) <= {"abi", "aio", "face", "interfaces"}, path


def test_nobody_below_the_house_imports_the_package_itself() -> None:
    """``import machport`` would load the face."""
    for room in ROOMS:
        for path in sources(room):
            assert "machport" not in imported(path), path
