"""The table of `tests/support/fidelity`: each row is as with plain Keras, is refused, or differs as stated."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.support.fidelity.document import markdown
from tests.support.fidelity.row import DIFFERENT, REFUSED, SAME, Row
from tests.support.fidelity.table import ROWS
from tests.support.paths import ROOT
from tests.support.scripts import SCRIPTS, environment

LIMIT_S = 1500.0
TOLERANCE = 2e-6  # of sums in another order; a worker and its servers compute in float32 as Keras does
ONE, BSP, ASYNC = ("--workers=1",), ("--workers=2", "--mode=bsp"), ("--workers=2",)


class Ran(NamedTuple):
    """The results of all rows in one run of the script."""

    folder: Path
    results: list[dict[str, Any]]  # of every worker

    def of(self, row: Row, rank: int = 0) -> dict[str, Any]:
        """Return the result of a row, with its weights."""
        found = dict(self.results[rank][row.key])
        if "refused" not in found:
            with np.load(self.folder / f"row-{ROWS.index(row)}" / f"weights-{rank}.npz") as file:
                found["weights"] = [file[name] for name in file.files]
        return found


def ran(folder: Path, flags: tuple[str, ...] = (), joint: int = 1, workers: int = 1) -> Ran:
    """Run all rows with plain Keras, or as one job if there are flags."""
    folder.mkdir()
    script = str(SCRIPTS / "fidelity.py")
    command = ["-m", "downpour", "run", *flags, script] if flags else [script]
    done = subprocess.run(
        [sys.executable, *command, str(folder)], cwd=folder, capture_output=True, text=True, timeout=LIMIT_S,
        env={**environment(), "FIDELITY_JOINT": str(joint), **({} if flags else {"FIDELITY_PLAIN": "1"})},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return Ran(folder, [json.loads((folder / f"results-{rank}.json").read_text()) for rank in range(workers)])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ran]:
    folder = tmp_path_factory.mktemp("fidelity")
    with ThreadPoolExecutor(2) as pool:
        waiting = {
            "plain": pool.submit(ran, folder / "plain"),
            "joint": pool.submit(ran, folder / "joint", joint=2),
            "one": pool.submit(ran, folder / "one", ONE),
            "bsp": pool.submit(ran, folder / "bsp", BSP, workers=2),
            "async": pool.submit(ran, folder / "async", ASYNC, workers=2),
        }
        return {name: future.result() for name, future in waiting.items()}


def assert_equal(found: dict[str, Any], expected: dict[str, Any], tolerance: float = TOLERANCE) -> None:
    """Assert that a row gave the same weights, losses and facts as another run of it."""
    assert "refused" not in found, found
    assert found["facts"] == expected["facts"]
    assert [w.shape for w in found["weights"]] == [w.shape for w in expected["weights"]]
    for mine, other in zip(found["weights"], expected["weights"], strict=True):
        assert np.allclose(mine, other, rtol=tolerance, atol=tolerance), np.abs(mine - other).max()
    assert np.allclose(found["losses"], expected["losses"], rtol=1e-5, atol=1e-6)


def each_row(run: Any) -> None:
    """Apply a check to every row, and fail with all rows that do not pass."""
    wrong = []
    for row in ROWS:
        if not row.can_run:
            continue
        try:
            run(row)
        except AssertionError as error:
            wrong.append(f"{row.key}: {str(error)[:400]}")
    assert not wrong, f"{len(wrong)} of {len(ROWS)} rows:\n" + "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.fidelity
@pytest.mark.timeout(3600)
class TestRows:
    """All rows in five runs: plain Keras with the batch and the joint batch, and three clusters."""

    def test_every_row_trains_with_plain_keras(self, runs: dict[str, Ran]) -> None:
        def check(row: Row) -> None:
            if row.decision != REFUSED:
                assert "refused" not in runs["plain"].of(row), runs["plain"].of(row)["refused"]

        each_row(check)

    def test_one_worker_gives_what_plain_keras_gives(self, runs: dict[str, Ran]) -> None:
        def check(row: Row) -> None:
            found = runs["one"].of(row)
            if row.decision == REFUSED:
                assert re.search(row.words, found.get("refused", "")), found.get("refused", "it was not refused")
            elif row.decision == SAME:
                assert_equal(found, runs["plain"].of(row))
            else:
                assert found.get("facts") == runs["plain"].of(row)["facts"], found

        each_row(check)

    def test_two_bsp_workers_give_what_one_process_gives_with_the_joint_batch(self, runs: dict[str, Ran]) -> None:
        def check(row: Row) -> None:
            for rank in (0, 1):
                found = runs["bsp"].of(row, rank)
                refusal = row.words if row.decision == REFUSED else row.several
                if refusal != SAME:
                    assert re.search(refusal, found.get("refused", "")), found.get("refused", "it was not refused")
                elif row.bsp == SAME:
                    assert_equal(found, runs["joint"].of(row), tolerance=2e-5)
                else:
                    assert found.get("facts") == runs["joint"].of(row)["facts"], found

        each_row(check)

    def test_two_async_workers_have_the_same_facts_and_weights(self, runs: dict[str, Ran]) -> None:
        def check(row: Row) -> None:
            first, second = (runs["async"].of(row, rank) for rank in (0, 1))
            refusal = row.words if row.decision == REFUSED else row.several
            if refusal != SAME:
                for found in (first, second):
                    assert re.search(refusal, found.get("refused", "")), found.get("refused", "it was not refused")
                return
            assert first.get("facts") == runs["plain"].of(row)["facts"], first
            assert_equal(second, first, tolerance=0.0)

        each_row(check)


def test_the_documentation_shows_the_table() -> None:
    written = (ROOT / "docs" / "fidelity.md").read_text()
    if os.environ.get("FIDELITY_WRITE"):
        (ROOT / "docs" / "fidelity.md").write_text(markdown(ROWS))
    assert written == markdown(ROWS), "write it with FIDELITY_WRITE=1 pytest tests/keras/test_fidelity.py"


def test_every_row_that_differs_says_how() -> None:
    assert len(ROWS) >= 120
    for row in ROWS:
        assert row.decision in (SAME, REFUSED, DIFFERENT)
        assert row.decision == SAME or row.words, row.key
