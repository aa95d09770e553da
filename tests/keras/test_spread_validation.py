"""`--spread-validation`: every worker evaluates a part, and the logs are those of one process on the same weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.scripts import run

pytestmark = pytest.mark.slow
EPOCHS = 4


def check(folder: Path, kind: str, ranks: tuple[int, ...] = (0, 1)) -> list[int]:
    """Check the logs of the workers, and return how many batches each has validated."""
    reports = [json.loads((folder / f"report-{rank}.json").read_text()) for rank in ranks]
    validated = range(1, EPOCHS, 2) if kind == "every second epoch" else range(EPOCHS)
    for report in reports:
        assert report["history"] == reports[0]["history"] and report["best"] == reports[0]["best"]
        losses = [loss for loss in report["seen"] if loss is not None]
        assert losses == [*report["history"]["val_loss"], losses[-1]], "callbacks receive equal logs on all workers"
    whole = [reports[0]["whole"][epoch] for epoch in validated]
    for name in ("loss", "accuracy", "top"):
        expected = [each[name] for each in whole]
        assert reports[0]["history"][f"val_{name}"] == pytest.approx(expected, rel=1e-5)
        assert [each[name] for each in reports[0]["tested"]] == pytest.approx(expected, rel=1e-5)
    return [report["own"] for report in reports]


@pytest.mark.parametrize("kind", ["arrays", "dataset", "every second epoch", "one batch"])
def test_every_worker_validates_a_part_and_the_logs_are_those_of_one_process(tmp_path: Path, kind: str) -> None:
    run(tmp_path, "spread_validation.py", str(tmp_path), kind, workers=2, spread_validation=True)
    own = check(tmp_path, kind)
    batches, epochs = (1 if kind == "one batch" else 13), (2 if kind == "every second epoch" else EPOCHS)
    assert sum(own) == batches * epochs
    assert own[0] == -(-batches // 2) * epochs


def test_worker_0_evaluates_the_part_of_a_worker_that_is_killed_in_it(tmp_path: Path) -> None:
    done = run(tmp_path, "spread_validation.py", str(tmp_path), "killed", workers=2, spread_validation=True)
    assert "worker-1 was killed by SIGKILL" in done.stderr
    own = check(tmp_path, "killed", ranks=(0,))  # the job may end before the other has been started again
    assert own == [7 * EPOCHS], "no hook is called for the part of the other"


def test_without_the_setting_worker_0_validates_all(tmp_path: Path) -> None:
    run(tmp_path, "spread_validation.py", str(tmp_path), "arrays", workers=2)
    assert check(tmp_path, "arrays") == [13 * EPOCHS] * 2, "the other worker repeats the hooks"
