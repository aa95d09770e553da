"""The conformance suite: every row passes, and fails with its mutant."""

from __future__ import annotations

import json
import re

import pytest

from downpour.bench.conformance import validate
from downpour.bench.conformance.row import Case, ConformanceRow, Parts
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow

LONG = ("C3", "C4", "C8", "C9", "C18")
ROWS = [
    pytest.param(row, id=f"{row.name}-{row.where.replace(' ', '-')}", marks=[pytest.mark.slow] * (row.name in LONG))
    for row in validate.ROWS
]


@pytest.mark.parametrize("row", ROWS)
def test_a_row_passes(row: ConformanceRow) -> None:
    result = validate.measured(row, Parts(), quick=True)
    assert result["passed"], "\n".join(validate.lines_of(result))


@pytest.mark.parametrize("row", ROWS)
def test_a_mutant_fails_its_row(row: ConformanceRow) -> None:
    cases = row.measure(row.mutant, True)
    assert not all(case.passed for case in cases), row.fault


def test_every_prediction_has_a_row_and_a_paragraph() -> None:
    rows = {row.name for row in validate.ROWS}
    assert rows == {f"C{n}" for n in (1, 2, 3, 4, 8, 9, 10, 13, 14, 15, 16, 18, 22, 23, 24, 25, 26, 27)}
    text = (ROOT / "docs" / "theory.md").read_text()
    assert set(re.findall(r"^### (C\d+)", text, re.M)) == rows


@pytest.mark.parametrize(
    ("case", "passes"),
    [
        (Case("", 2.0, 2.09, 0.05, "relative"), True),
        (Case("", 2.0, 2.11, 0.05, "relative"), False),
        (Case("", 0.0, -1e-6, 1e-5, "absolute"), True),
        (Case("", 3, 4, 0, "at most"), False),
        (Case("", 3, 2, 0, "at most"), True),
        (Case("", 3, 3), True),
        (Case("", 3, float("nan"), 9.0, "absolute"), False),
    ],
)
def test_a_case_is_compared_within_its_tolerance(case: Case, passes: bool) -> None:
    assert case.passed is passes


def test_the_command_prints_json_and_exits_with_0_or_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert validate.main(["--quick", "--rows=C2,C24", "--json=-"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["passed"] and [row["row"] for row in printed["rows"]] == ["C2", "C24"]
    wrong = ConformanceRow("C2", "vectors", "1 = 2", lambda parts, quick: [Case("1", 2.0, 1.0)], Parts(), "")
    monkeypatch.setattr(validate, "ROWS", [wrong])
    assert validate.main(["--rows=C2"]) == 1
    assert "FAIL" in capsys.readouterr().out


def test_a_row_that_raises_fails_with_the_reason() -> None:
    def broken(parts: Parts, quick: bool) -> list[Case]:
        raise RuntimeError("no server")

    result = validate.measured(ConformanceRow("C2", "vectors", "", broken, Parts(), ""), Parts(), True)
    assert not result["passed"] and "no server" in result["error"]
