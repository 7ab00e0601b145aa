"""The pages show what runs, name what there is, and make a site."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import machport

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
EXAMPLES = {path: path.read_text() for path in sorted((ROOT / "examples").rglob("*.py"))}
ERRORS = sorted(
    (kind for name in machport.__all__ if isinstance(kind := getattr(machport, name), type)),
    key=lambda kind: kind.__name__,
)
ERRORS = [kind for kind in ERRORS if issubclass(kind, machport.MachError)]
#: Those that tell whose doing an error was, and the base of all.
BLAME = (
    machport.MachError,
    machport.Misuse,
    machport.PeerGone,
    machport.PeerFault,
    machport.NotNow,
    machport.LimitReached,
    machport.DaemonGone,
    machport.Bug,
)
_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
#: A file that is shown whole.  In this form of the two that there are, because the other is Python, too, and formatted.
_SNIPPET = re.compile(r"^--8<--\n(.+)\n--8<--$", re.MULTILINE)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path, language: str) -> list[str]:
    """The blocks of a page in a language, without the page's own indentation."""
    return [textwrap.dedent(body) for _, kind, body in _FENCE.findall(path.read_text()) if kind == language]


def is_part(block: str, program: str) -> bool:
    """Whether the lines of a block stand one behind the other in a program, indented as there; but for empty ones."""
    wanted, text = (
        [line for line in whole.splitlines() if line.strip()] for whole in (textwrap.dedent(block), program)
    )
    starts = range(len(text) - len(wanted) + 1)
    return any(textwrap.dedent("\n".join(text[at : at + len(wanted)])).splitlines() == wanted for at in starts)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_python_block_is_of_a_program_that_the_tests_run(page: Path) -> None:
    """A whole file by a snippet, or lines that stand in one."""
    for block in blocks(page, "python"):
        snippet = _SNIPPET.fullmatch(block.strip())
        if snippet:
            assert ROOT / snippet[1] in EXAMPLES
        else:
            assert any(is_part(block, program) for program in EXAMPLES.values()), block


def test_a_block_that_is_of_no_program_is_seen() -> None:
    """The test above can fail: on a changed line, a line left out, or another indentation."""
    program = "import a\n\n\ndef f():\n    if a:\n        b()\n    c()\n"
    assert is_part("if a:\n    b()\nc()", program)
    assert not is_part("if a:\n    b(1)", program)
    assert not is_part("if a:\nc()", program)
    assert not is_part("if a:\nb()", program)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_block_hides_python_under_another_name(page: Path) -> None:
    """Blocks without a language are commands and drawings."""
    for block in [*blocks(page, ""), *blocks(page, "py"), *blocks(page, "pycon")]:
        assert not re.search(r"^(import|from|def|with|async def) ", block, re.MULTILINE), block


def test_below_every_file_that_the_site_shows_is_a_link_for_who_reads_the_page_without_it() -> None:
    for page in PAGES:
        text = page.read_text()
        for shown in _SNIPPET.finditer(text):
            link = re.match(r"\n```\n\n\[(\S+)\]\((\S+)\)\n", text[shown.end() :])
            assert link, (page, shown[1])
            assert (link[1], (page.parent / link[2]).resolve()) == (shown[1], ROOT / shown[1]), page


def test_every_program_in_a_folder_is_on_a_page() -> None:
    shown = {path for page in PAGES for path in _SNIPPET.findall(page.read_text())}
    assert {name_of(path) for path in EXAMPLES} <= shown


def test_what_a_program_prints_is_shown_behind_it() -> None:
    for page in PAGES:
        shown = _SNIPPET.findall(page.read_text())
        for program in shown:
            if re.match(r"examples/(tutorial|howto)/.*\.py$", program) and page.name != "examples.md":
                assert shown[shown.index(program) + 1] == program.replace(".py", ".txt"), page


def test_figures_about_speed_are_those_that_were_measured() -> None:
    """The page in plain words has none of its own."""
    number = re.compile(r"\d+(?:[.,]\d+)*")
    measured = {
        figure for page in ("benchmarks.md", "message-path.md") for figure in number.findall((DOCS / page).read_text())
    }
    assert set(number.findall((DOCS / "explanation/speed.md").read_text())) <= measured


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_is_in_troubleshooting(kind: type[machport.MachError]) -> None:
    headings = re.findall(r"^##.*$", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)
    assert [heading for heading in headings if kind.__name__ in re.findall(r"\w+", heading)]


def test_the_table_of_errors_has_each_with_its_kind_and_its_blame() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| `(\w+)` \|", (DOCS / "reference/errors.md").read_text(), re.MULTILINE)
    leaves = {kind for kind in ERRORS if kind not in BLAME or kind is machport.LimitReached}
    assert {name for name, _, _ in rows} == {kind.__name__ for kind in leaves}
    for name, kinds, blame in rows:
        kind = getattr(machport, name)
        assert issubclass(kind, getattr(machport, blame)), name
        bases = {base.__name__ for base in kind.__bases__ if base not in BLAME and not base.__name__.startswith("_")}
        assert set(re.findall(r"\w+", kinds)) == bases, name


@pytest.mark.parametrize("name", machport.__all__)
def test_every_public_name_is_in_the_reference(name: str) -> None:
    text = "".join(path.read_text() for path in (DOCS / "reference").glob("*.md"))
    assert re.search(rf"^::: machport\.(?:\w+\.)*{name}$|^\| `{name}`", text, re.MULTILINE) or name == "MachError"


TOOLS = all(importlib.util.find_spec(name) for name in ("mkdocs", "material", "mkdocstrings_handlers"))


@pytest.mark.skipif(not TOOLS, reason="the tools of the site are not installed; make docs installs them")
def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    loads = re.compile(r"<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)=\"(?:https?:)?//[^\"]*\"|url\(['\"]?https?:")
    # What leads to a program from below it is for readers of the files.
    leads = re.compile(r"<p>(<a[^>]*>)?examples/\S+\.(py|txt)(</a>)?</p>")
    for path in [*tmp_path.rglob("*.html"), *tmp_path.rglob("*.css")]:
        assert not loads.search(path.read_text()), path
        assert not leads.search(path.read_text()), path
