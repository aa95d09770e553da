"""Scripts whose workers make local steps: every batch counts once, and one worker does what plain Keras does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.scripts import run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

COUNTED = [
    {"push_every": 3}, {"push_every": 2, "fetch_every": 3}, {"push_every": 2, "overlap": True}, {"overlap": True},
    {"mode": "localsgd:4"}, {"mode": "localsgd:1"},
]  # fmt: skip


@pytest.mark.parametrize("settings", [*COUNTED, {"mode": "easgd:0.5,4"}], ids=str)
def test_every_batch_of_all_workers_counts_once(settings: dict[str, Any], tmp_path: Path) -> None:
    run(tmp_path, "local_steps.py", str(tmp_path / "report"), workers=2, **settings)
    first, second = (json.loads((tmp_path / f"report-{rank}.json").read_text()) for rank in range(2))
    for data in ("parts", "leased", "own"):
        assert first[data] == second[data]
        found = first[data]
        assert (found["iterations"], found["seen"], found["epochs"]) == (78, 78, 3) and found["ascending"]
        assert found["weight"] == 1000 - 78 if settings in COUNTED else 1000 - 78 <= found["weight"] < 1000
    assert first["sums"] == second["sums"] and first["sums"]["epochs"] == 3
    if settings in COUNTED:  # each worker may be left with the gradient of one batch
        assert first["sums"]["weight"] in (1000 - 78, 1000 - 76)


def test_local_steps_of_one_worker_are_those_of_plain_keras(tmp_path: Path) -> None:
    run(
        tmp_path,
        "equals_plain.py",
        str(tmp_path / "report"),
        "momentum",
        "adam",
        "cosine",
        workers=1,
        mode="localsgd:4",
    )
    report = json.loads((tmp_path / "report").read_text())
    assert len(report) == 3
    assert all(
        found["weights"] < 2e-5 and found["losses"] < 1e-5 and found["moved"] > 1e-3 for found in report.values()
    )
