"""What an optimizer is not given does not change, and several optimizers train one model as in plain Keras."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.scripts import SCRIPTS, environment, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SCRIPT = "partial_updates.py"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("plain") / "report.json"
    subprocess.run([sys.executable, str(SCRIPTS / SCRIPT), str(path)], env=environment(), check=True, timeout=300)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def report_of(folder: Path, **options: Any) -> dict[str, Any]:
    run(folder, SCRIPT, str(folder / "report.json"), **options)
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


def test_one_worker_makes_the_updates_of_plain_keras(tmp_path: Path, plain: dict[str, Any]) -> None:
    found = report_of(tmp_path, workers=1, shards=2)
    assert found.keys() == plain.keys()
    for case, expected in plain.items():
        assert found[case]["updates"] == expected["updates"], case
        for ours, theirs in zip(found[case]["weights"], expected["weights"], strict=True):
            largest = np.abs(theirs).max()
            np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=2e-6 * largest, err_msg=case)


@pytest.mark.parametrize("mode", ["async", "bsp"])
def test_the_updates_of_all_workers_are_counted_for_each_optimizer(
    tmp_path: Path, plain: dict[str, Any], mode: str
) -> None:
    """Averaged by a barrier, there are half as many updates as batches, but where the workers' optimizers differ."""
    found = report_of(tmp_path, workers=2, mode=mode)
    for case, expected in plain.items():
        if mode == "async":
            # Each worker accumulates its own batches, of which the last few may make no update.
            missing = sum(expected["updates"]) - sum(found[case]["updates"])
            assert 0 <= missing <= (1 if case == "accumulated" else 0), case
        else:
            assert sum(found[case]["updates"]) * 2 >= sum(expected["updates"]), case
