"""The kernel against transcripts of GNU Mach, and the reader of transcripts against what is not one."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from manual_differences import TRANSCRIPTS, differences, diverges, explanation, golden, themed

from machport.kernel.dialect import GNUMACH, MANUAL
from machport.replay.player import Player, play
from machport.replay.transcript import Scenario, Step, TranscriptError, read

FILES = sorted(TRANSCRIPTS.iterdir())
SCENARIOS = {"themed.txt": 174}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_scenario_is_answered_as_gnu_mach_answered(path: Path) -> None:
    """D = 0: to the last line of each."""
    count = 0
    for scenario in read(path):
        played, divergence = play(scenario, GNUMACH)
        assert divergence is None, str(divergence)
        assert played == len(scenario.steps)
        count += 1
    assert count == SCENARIOS.get(path.name, 2000)


def test_all_transcripts_are_there() -> None:
    assert len(FILES) == 5


# The manual's dialect


def test_the_differences_of_the_manual_are_those_on_record() -> None:
    """Switch by switch; see ``manual_differences`` for how to look at a change."""
    assert differences() == golden()


def test_every_themed_difference_of_the_manual_has_its_switch() -> None:
    """Whatever diverges in the manual's dialect is on the list of a single switch."""
    explained = {name for names in golden().values() for name in names}
    unexplained = [s.name for s in themed() if diverges(s, MANUAL) and s.name not in explained]
    assert unexplained == []


def test_every_switch_makes_a_difference() -> None:
    """A switch that no scenario needs would be a switch too many; circular messages are in the random ones."""
    assert [switch for switch, names in golden().items() if not names] == ["full_before_circular"]
    assert any("full_before_circular" in explanation(s) for s in _sample() if diverges(s, MANUAL))


def test_every_random_difference_of_the_manual_has_its_switch() -> None:
    """The same over 1,000 random scenarios: no divergence needs two switches at once."""
    needs_more = {}
    for scenario in _sample():
        if diverges(scenario, MANUAL):
            switches = explanation(scenario)
            if len(switches) != 1:
                needs_more[scenario.name] = switches
    assert needs_more == {}


def _sample() -> list[Scenario]:
    return list(read(TRANSCRIPTS / "random-00001-02000.txt.gz"))[:1000]


# What is not a transcript

MALFORMED = {
    "empty": ("", 1, "'scenario NAME'; the file ends"),
    "no scenario": ("> t0 names\n", 1, "'scenario NAME'; found '> t0 names'"),
    "scenario without a name": ("scenario\n", 1, "'scenario NAME'"),
    "no end": ("scenario s\n> t0 names\n= KERN_SUCCESS\n", 4, "'end' of scenario s; the file ends"),
    "fourth task": ("scenario s\n> t3 names\n", 2, "with K 0, 1 or 2; found '> t3 names'"),
    "operation with two blanks": ("scenario s\n> t0  names\n", 2, "'> tK OPERATION ARGUMENTS'"),
    "operation without an answer": ("scenario s\n> t0 names\n> t0 names\n", 3, "'= RESULT' of the operation before"),
    "end without an answer": ("scenario s\n> t0 names\nend\n", 3, "'= RESULT' of the operation before"),
    "answer to nothing": ("scenario s\n= KERN_SUCCESS\n", 2, "an operation before its one result"),
    "two answers": ("scenario s\n> t0 names\n= A\n= B\n", 4, "an operation before its one result"),
    "empty answer": ("scenario s\n> t0 names\n=\n", 3, "an operation before its one result"),
    "detail of nothing": ("scenario s\n> t0 dump\n| a1\n", 3, "a result before its details"),
    "another mark": ("scenario s\n* hello\n", 2, "a line that begins with '>', '=', '|' or '#', or 'end'"),
    "empty line": ("scenario s\n\nend\n", 2, "or 'end'"),
    "second scenario unfinished": ("scenario s\nend\nscenario t\n", 4, "'end' of scenario t"),
    "text between": ("scenario s\nend\nhello\n", 3, "'scenario NAME'; found 'hello'"),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_line_is_refused_with_its_number(kind: str, tmp_path: Path) -> None:
    """And with what was expected there."""
    text, line, expected = MALFORMED[kind]
    path = tmp_path / "transcript.txt"
    path.write_text(text)
    with pytest.raises(TranscriptError) as caught:
        list(read(path))
    assert f"{path}, line {line}: expected " in str(caught.value)
    assert expected in str(caught.value)


@pytest.mark.parametrize("damage", ["truncated", "changed", "only the magic", "not ASCII"])
def test_a_damaged_file_is_refused_by_name(damage: str, tmp_path: Path) -> None:
    """Whatever the damage."""
    whole = gzip.compress(b"scenario s\n> t0 names\n= KERN_SUCCESS\nend\n" * 50, mtime=0)
    data = {
        "truncated": whole[: len(whole) // 2],
        "changed": whole[:20] + bytes(byte ^ 0xFF for byte in whole[20:]),
        "only the magic": whole[:2],
        "not ASCII": "scenario ü\n".encode(),
    }[damage]
    path = tmp_path / "transcript.gz"
    path.write_bytes(data)
    with pytest.raises(TranscriptError, match=r"transcript\.gz: neither ASCII text nor a whole gzip file"):
        list(read(path))


def test_plain_and_packed_files_read_alike(tmp_path: Path) -> None:
    text = (TRANSCRIPTS / "themed.txt").read_bytes()
    (tmp_path / "packed").write_bytes(gzip.compress(text))
    assert list(read(tmp_path / "packed")) == themed()


def test_a_file_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(read(tmp_path / "nothing"))


@pytest.mark.parametrize(
    "operation",
    [
        "fly",
        "names a1",
        "allocate",
        "allocate FOO",
        "type b1",
        "type x",
        "mod_refs a1 SEND many",
        "insert_right a1 MAKE_SEND",
        "insert_right a1 MAKE_SEND[a1]",
        "request_notification a1 DEAD_NAME 0 notify=null",
        "request_notification a1 DEAD_NAME sync=0 notify=a1",
        "send remote=MAKE_SEND(a1) local=null id=99999999999 ports=[]",
        "send remote=MAKE_SEND(a1) local=null id=1 ports=[300(a1)]",
        "send remote=MAKE_SEND(a1) local=null id=1 ports=[MAKE_SEND]",
    ],
)
def test_an_operation_that_is_not_of_the_format_is_refused_with_its_line(operation: str) -> None:
    """In the words of the transcript."""
    name, *arguments = operation.split()
    step = Step(17, 0, name, arguments, ["KERN_SUCCESS"])
    with pytest.raises(TranscriptError, match=r"line 17: .*expected"):
        Player(GNUMACH).perform(step)


def test_a_divergence_shows_both_sides() -> None:
    """Scenario, line, operation, what was expected and what came."""
    scenario = Scenario("wrong", 1, [Step(2, 0, "names", [], ["KERN_SUCCESS count=1 names=[a1:SEND]"])])
    count, divergence = play(scenario, MANUAL)
    assert count == 1
    assert str(divergence).splitlines() == [
        "scenario wrong, line 2",
        "  > t0 names",
        "  expected  KERN_SUCCESS count=1 names=[a1:SEND]",
        "  got       KERN_SUCCESS count=0 names=[]",
    ]
