"""A short run of ``chaos exhaustion``: whatever one process takes, the daemon lives and has in the end what it had."""

from __future__ import annotations

import pytest

from chaos import exhaustion
from chaos.report import Report


@pytest.mark.parametrize("name", ["ulimit -n 64", "ports", "connections"])
def test_what_was_taken_is_there_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """How long others wait meanwhile is for a long run on a quiet machine."""
    monkeypatch.setattr(exhaustion, "_SECONDS", 0.2)
    monkeypatch.setattr(exhaustion, "SCENARIOS", [one for one in exhaustion.SCENARIOS if one.name == name])
    report = Report("exhaustion", "", 0.003, exhaustion.UNIT, 1)
    exhaustion.run(report)
    assert not report.anomalies
    assert len(report.figures) == 8
