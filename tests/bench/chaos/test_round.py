"""A round of kills: a job that ends while its launcher is killed is not resumed."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from downpour.bench.chaos import round as rounds
from downpour.bench.chaos.checks import Findings
from downpour.bench.chaos.settings import ChaosCounts, ChaosSettings
from downpour.bench.chaos.shared_flags import IN_FLIGHT
from tests.support.cluster import wait_until

ENDS = "import pathlib, time; pathlib.Path('run/summary.json').write_text('{\"status\": \"ended\"}'); time.sleep(60)"


class Ended:
    """A job that has ended when its launcher is killed."""

    worker_module, start_s, end_s, any_moment_share = "none", 60.0, 60.0, 0.0

    def __init__(self, folder: Path) -> None:
        self.run = folder / "run"
        self.run.mkdir()

    def command(self, resume: bool) -> list[str]:
        assert not resume, "a job that has ended cannot be resumed"
        return [sys.executable, "-c", ENDS]

    def findings(self) -> Findings:
        return Findings([], samples=7)


def test_a_job_that_ends_while_its_launcher_is_killed_is_not_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "job_of", lambda settings, folder: Ended(folder))
    counts = ChaosCounts()
    job = rounds.Round(ChaosSettings(workers=1), tmp_path / "round", random.Random(0), counts)
    job._flags[IN_FLIGHT] = 1
    summary = tmp_path / "round" / "run" / "summary.json"
    wait_until(lambda: summary.exists() and summary.read_text(), "the job has ended")
    assert job._kill_launcher() == 1
    job.run(0)
    assert counts.faults == [] and counts.samples == 7 and counts.resumes == 0
