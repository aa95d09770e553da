"""Batch hooks of callbacks: each worker calls them once for every batch of the job, in order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.scripts import run

pytestmark = pytest.mark.slow
BATCHES, STOP = 21, 7  # as in the script


@pytest.mark.parametrize(("workers", "mode"), [(2, "async"), (3, "async"), (2, "bsp")])
def test_hooks_are_called_once_for_every_batch(tmp_path: Path, workers: int, mode: str) -> None:
    done = run(tmp_path, "batch_hooks.py", str(tmp_path), workers=workers, mode=mode)
    assert done.returncode == 0, done.stderr[-3000:]
    epoch = list(range(BATCHES))
    for rank in range(workers):
        first, second, stopped = json.loads((tmp_path / f"hooks-{rank}.json").read_text())
        for found in (first, second):
            assert found["begun"] == found["ended"] == [epoch] * 3
        assert stopped["begun"] == stopped["ended"] == [epoch, epoch[: STOP + 1]]
