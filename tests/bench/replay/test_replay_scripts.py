"""Real runs of scripts, done again by `downpour replay`: identical bits, or a word on why not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.support.scripts import SCRIPTS, environment, run

pytestmark = pytest.mark.slow


def replay(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `downpour replay` on the newest run in a folder."""
    command = [sys.executable, "-m", "downpour.deploy.cli", "replay", str(folder / "runs" / "latest"), *arguments]
    return subprocess.run(command, env=environment(), cwd=folder, capture_output=True, text=True, timeout=400)


@pytest.mark.parametrize(
    ("kind", "shards", "flags"),
    [
        ("adam", 2, {}),
        ("momentum", 1, {"mode": "ssp:1", "codec": "int8"}),
        ("momentum", 2, {"mode": "kasync:2"}),
        ("momentum", 1, {"mode": "localsgd:3"}),
    ],
)
def test_a_script_of_three_workers_is_replayed_bit_by_bit(
    tmp_path: Path, kind: str, shards: int, flags: dict[str, str]
) -> None:
    run(tmp_path, "replayed_fits.py", kind, workers=3, shards=shards, **flags)
    before = (tmp_path / "best.weights.h5").stat().st_mtime_ns
    done = replay(tmp_path, "--json")
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    found = json.loads(done.stdout)
    assert found["exact"] and found["tensors"] > 10 and found["pushes"] > 0
    assert (tmp_path / "best.weights.h5").stat().st_mtime_ns == before  # the files of the run are as they were


def test_the_weights_of_a_version_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    run(tmp_path, "replayed_fits.py", "adam", workers=3, shards=2, checkpoint_every=10)
    kept = load_file(tmp_path / "runs" / "latest" / "fits" / "fit-000001.safetensors")
    updates = 2 * 480 * 9 // 10 // 8  # of the first call
    done = replay(tmp_path, f"--until={updates}", "--fit=1")
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    model = tmp_path / "runs" / "latest" / f"replay-{updates}.keras"
    assert model.exists()
    order = tmp_path / "runs" / "latest" / "replay" / "order"
    parts = [load_file(order / f"weights-shard{shard}.safetensors")["trained"] for shard in range(2)]
    assert np.concatenate(parts).tobytes() == kept["trained"].tobytes()


def test_a_script_that_does_something_else_is_told(tmp_path: Path) -> None:
    run(tmp_path, "replayed_fits.py", "undetermined", workers=2)
    done = replay(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr[-4000:]
    assert "learning_rate" in done.stdout and "tensors differ" in done.stdout


def test_a_changed_script_is_refused_before_it_starts(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text((SCRIPTS / "replayed_fits.py").read_text())
    command = [sys.executable, "-m", "downpour.deploy.cli", "run", "--workers=1", str(script), "adam"]
    subprocess.run(command, env=environment(), cwd=tmp_path, check=True, timeout=400, capture_output=True)
    script.write_text(script.read_text() + "\n")
    done = replay(tmp_path)
    assert done.returncode == 2 and "has changed since" in done.stderr
