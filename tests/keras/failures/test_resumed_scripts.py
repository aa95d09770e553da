"""Scripts of which all processes are killed: `downpour run --resume` continues in the interrupted call of `fit`."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.scripts import command, environment

pytestmark = pytest.mark.slow
EPOCHS, BATCHES = 5, 512 // 16


def notes(folder: Path, rank: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"notes-{rank}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", ["convnet", "freezing", "gan"])
def test_complete_calls_return_at_once_and_the_interrupted_one_goes_on(tmp_path: Path, kind: str) -> None:
    arguments = (str(tmp_path), kind)
    begun = subprocess.Popen(
        command(tmp_path, "resumed_fits.py", *arguments, workers=2, checkpoint_every="0.3s"), env=environment(),
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert begun.stdout is not None
        assert any(line.startswith("EPOCH second 2") for line in begun.stdout)
    finally:
        os.killpg(begun.pid, signal.SIGKILL)
        begun.communicate()
    (first,) = notes(tmp_path, 0)
    (run_dir,) = [path for path in (tmp_path / "runs").iterdir() if not path.is_symlink()]
    again = command(tmp_path, "resumed_fits.py", *arguments, workers=2, resume=run_dir)
    done = subprocess.run(again, env=environment(), cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "resumed from checkpoint" in done.stderr
    assert notes(tmp_path, 0)[1] == first
    for rank in (0, 1):
        repeated, second = notes(tmp_path, rank)[-2:]
        assert repeated == first
        assert second["epochs"] == list(range(EPOCHS))
        assert all(len(values) == EPOCHS for values in second["history"].values())
        assert len(second["seen"]) == EPOCHS
        expected = EPOCHS * BATCHES * (1 if kind == "freezing" else 2)
        assert second["iterations"] == [expected] * len(second["iterations"])
    if kind == "convnet":
        rows = list(csv.DictReader((tmp_path / "second.csv").read_text().splitlines()))
        assert [int(row["epoch"]) for row in rows] == list(range(EPOCHS))
