"""Worker 0 dies between two epochs: the one that is started again calls the callbacks that have not been called."""

from __future__ import annotations

import csv
import json
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest

from tests.support.scripts import run

pytestmark = pytest.mark.slow
SAMPLES, RATES = 160, [1.0, 8.0, 1.0, 64.0]


@pytest.mark.parametrize("where", ["end", "begin"])
def test_every_callback_sees_every_epoch_with_its_weights_and_rates(tmp_path: Path, where: str) -> None:
    done = run(tmp_path, "dying_leader.py", str(tmp_path), where, workers=2)
    assert "worker-0 was killed by SIGKILL; restarted" in done.stderr
    first, other = (json.loads((tmp_path / f"report-{rank}.json").read_text()) for rank in (0, 1))
    assert first == other
    assert first["epochs"] == [0, 1, 2, 3] and first["history"]["learning_rate"] == RATES
    assert len(first["history"]["loss"]) == 4
    totals = list(accumulate(RATES))
    assert first["weights"] == [-totals[-1]] * SAMPLES
    for epoch, total in enumerate(totals):
        assert np.load(tmp_path / f"epoch-{epoch}.npy").tolist() == [-total] * SAMPLES
        assert (tmp_path / f"{epoch + 1}.weights.h5").exists()
    for name in ("log.csv", "appended.csv"):
        rows = list(csv.DictReader((tmp_path / name).read_text().splitlines()))
        assert [int(row["epoch"]) for row in rows] == [0, 1, 2, 3], name
        assert [float(row["learning_rate"]) for row in rows] == RATES, name
