"""The planted faults: each fits the sources, and simulated jobs find one that is planted."""

from __future__ import annotations

from pathlib import Path

import pytest

from downpour.bench.world.history import HISTORY
from downpour.bench.world.mutants import MUTANTS, Mutant
from downpour.bench.world.mutation import copy_sources, planted, try_mutant, update_report
from tests.support.paths import ROOT


@pytest.mark.parametrize("mutant", [*MUTANTS, *HISTORY], ids=lambda mutant: mutant.name)
def test_a_mutant_changes_one_place_of_its_file_and_is_python(mutant: Mutant) -> None:
    source = (ROOT / mutant.file).read_text()
    compile(planted(source, mutant), mutant.file, "exec")


def test_mutants_have_names_of_their_own() -> None:
    names = {mutant.name for mutant in (*MUTANTS, *HISTORY)}
    assert len(names) == len(MUTANTS) + len(HISTORY) and len(MUTANTS) >= 60


def test_a_line_that_does_not_occur_is_refused() -> None:
    with pytest.raises(ValueError, match="must occur once"):
        planted("x = 1\n", Mutant("nothing", "a.py", "y = 2", "y = 3"))


def test_a_report_of_several_runs_has_the_newest_result_of_every_mutant(tmp_path: Path) -> None:
    path, mutants = tmp_path / "report.md", [Mutant(name, "a.py", "x", "y") for name in ("first", "second", "third")]
    update_report(path, mutants, mutants[2], 3.0, "seed 1: a | b")
    update_report(path, mutants, mutants[0], 60.0, "")
    update_report(path, mutants, mutants[1], 60.0, "")
    assert "1 of the 3 mutants" in path.read_text()
    update_report(path, mutants, mutants[1], 5.0, "seed 2: c")
    rows = [line for line in path.read_text().splitlines() if line.startswith("| `")]
    assert rows == [
        "| `a.py` | first | 60 | **not found** |",
        "| `a.py` | second | 5 | seed 2: c |",
        "| `a.py` | third | 3 | seed 1: a / b |",
    ]
    update_report(path, mutants[:1], mutants[0], 1.0, "seed 3: d")
    assert "1 of the 1 mutants" in path.read_text()


@pytest.mark.slow
def test_a_planted_fault_is_found_and_the_source_is_restored(tmp_path: Path) -> None:
    copy, mutant = copy_sources(tmp_path), MUTANTS[0]
    assert try_mutant(copy, mutant, 60.0)
    assert (copy / mutant.file).read_text() == (ROOT / mutant.file).read_text()
