"""What a stranger gets from the package, beside what it does."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import machport
from machport.abi.release import RELEASE

ROOT = Path(__file__).parents[2]
#: What whoever only sends messages shall not wait for.
NOT_LOADED = {"asyncio", "ctypes", "msgspec", "multiprocessing", "numpy", "random", "subprocess", "tempfile"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def loaded_by(program: str) -> set[str]:
    """Modules of a fresh interpreter that has run a program; without its site, which loads modules of its own."""
    paths = [str(ROOT), *(path for path in sys.path if path.endswith("site-packages"))]
    start = f"import sys; sys.path.extend({paths!r}); {program}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", start], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_machport_loads_nothing_heavy() -> None:
    """What is heavy is imported by the call that needs it."""
    loaded = loaded_by("import machport")
    assert "machport.face.task" in loaded
    assert not loaded & NOT_LOADED


def test_a_module_that_is_loaded_is_seen() -> None:
    """The test above can fail."""
    assert {"machport", "ctypes"} <= loaded_by("import machport, ctypes")


def test_addresses_load_what_they_need() -> None:
    assert "ctypes" in loaded_by("import machport.mach; machport.mach.vm_allocate(1)")


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(machport.__file__).parent / "py.typed").exists()
    assert "Typing :: Typed" in PROJECT["project"]["classifiers"]


def test_type_checkers_find_the_package_from_anywhere(tmp_path: Path) -> None:
    """They look into folders of the path only, not through hooks, by which editable packages are found otherwise."""
    show = (
        "import sys, pathlib, machport; print(pathlib.Path(machport.__file__).parents[1]); print(*sys.path, sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", show], cwd=tmp_path, capture_output=True, text=True, check=True, env={}
    )
    place, *paths = done.stdout.splitlines()
    assert place in paths, "install it with --config-settings editable_mode=compat, as the Makefile does"


def names_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} | {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)
    }


@pytest.mark.parametrize("name", machport.__all__)
def test_every_public_name_has_a_type_test(name: str) -> None:
    assert any(name in names_in(path) for path in (ROOT / "tests" / "typing").glob("*.py"))


def test_the_command_is_installed() -> None:
    commands = importlib.metadata.entry_points(group="console_scripts", name="machport")
    assert [command.value for command in commands] == [PROJECT["project"]["scripts"]["machport"]]


def test_the_program_knows_which_release_it_is() -> None:
    """Without looking at what is installed, which may be another by then."""
    assert PROJECT["project"]["version"] == RELEASE


def test_every_news_fragment_is_of_a_kind_and_ends_as_sentences_do() -> None:
    kinds = {kind["directory"] for kind in PROJECT["tool"]["towncrier"]["type"]}
    fragments = [path for path in (ROOT / "news").iterdir() if path.name != ".gitignore"]
    for path in fragments:
        assert re.fullmatch(rf"\+[a-z0-9-]+\.({'|'.join(kinds)})\.md", path.name), path.name
        assert path.read_text().rstrip().endswith("."), path.name


def test_the_interpreters_that_are_claimed_are_those_that_wheels_are_built_for() -> None:
    claimed = {
        match[1] for line in PROJECT["project"]["classifiers"] if (match := re.fullmatch(r".* :: (3\.\d+)", line))
    }
    assert {"cp" + version.replace(".", "") + "-*" for version in claimed} == set(
        PROJECT["tool"]["cibuildwheel"]["build"]
    )
