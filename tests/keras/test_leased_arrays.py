"""Arrays of a script: each sample of each epoch is used exactly once, also if a worker is killed."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.support.scripts import command, environment

pytestmark = pytest.mark.slow
SAMPLES, EPOCHS = 800, 3


@pytest.mark.parametrize("mode", ["async", "bsp"])
def test_the_samples_of_a_killed_worker_are_used_by_the_others(tmp_path: Path, mode: str) -> None:
    arguments = (str(tmp_path), str(EPOCHS), str(SAMPLES), "0.01", "arrays")
    begun = subprocess.Popen(
        command(tmp_path, "counted_fit.py", *arguments, workers=3, mode=mode), env=environment(), cwd=tmp_path,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert begun.stdout is not None
        assert any(line.startswith("BATCH 40") for line in begun.stdout)
        for process in psutil.Process(begun.pid).children():
            if "--worker=1" in process.cmdline():
                process.kill()
        _, errors = begun.communicate(timeout=120)
    finally:
        begun.kill()
    assert begun.returncode == 0, errors[-3000:]
    assert re.search(r"worker-1 was killed by SIGKILL", errors)
    for rank in (0, 2):
        report = json.loads((tmp_path / f"report-{rank}.json").read_text())
        assert report["epochs"] == list(range(EPOCHS))
        assert report["iterations"] == EPOCHS * SAMPLES // 8
        if mode == "async":  # with the mean of several gradients, each sample counts less
            assert report["uses"] == [EPOCHS] * SAMPLES
