"""Whole jobs in simulated worlds: equal seeds give equal runs, and no fault loses or repeats a sample."""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import numpy as np
import psutil
import pytest

from downpour.bench.module_process import module_environment
from downpour.bench.world.faults import Fault, parse_faults, written
from downpour.bench.world.job import run_job
from downpour.bench.world.job_shape import JobShape
from downpour.bench.world.seeded_job import SimulateJobSettings, shape_of
from downpour.bench.world.simulate_job import simulate
from downpour.ps.core.push import Push, Result
from downpour.ps.core.shard import Shard
from tests.support.cluster import wait_until
from tests.support.paths import ROOT


def problems_of(seed: int, **settings: object) -> list[str]:
    return run_job(seed, shape_of(seed, SimulateJobSettings(**settings))).problems  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(1, 11))
def test_a_job_without_faults_applies_every_sample_once(seed: int) -> None:
    assert problems_of(seed, faults="none") == []


@pytest.mark.parametrize("seed", range(1, 31))
def test_killed_processes_and_broken_connections_lose_nothing(seed: int) -> None:
    assert problems_of(seed, faults="kill,reset", count=3) == []


def digest_in_a_new_process(seed: int, hash_seed: str) -> str:
    command = [sys.executable, "-P", "-m", "downpour.bench.world.simulate_job", f"--seed={seed}", "--faults=kill,reset"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.partition("digest ")[2].split(";")[0]


def test_a_seed_gives_the_same_events_trace_and_weights_again() -> None:
    shape = shape_of(2, SimulateJobSettings(faults="kill,reset"))
    digests = {run_job(2, shape).digest for _ in range(5)}
    assert {f"{digest:08x}" for digest in digests} == {digest_in_a_new_process(2, "1"), digest_in_a_new_process(2, "2")}


def test_the_garbage_collector_changes_no_run() -> None:
    """Asynchronous generators that it closed were events at times that depended on its thresholds."""
    before = gc.get_threshold()
    try:
        for seed in (1, 19):
            digests = set()
            for threshold in (50, 100_000):
                gc.set_threshold(threshold)
                digests.add(run_job(seed, shape_of(seed, SimulateJobSettings(workers=3, shards=2, count=3))).digest)
            assert len(digests) == 1
    finally:
        gc.set_threshold(*before)


def test_three_hundred_jobs_with_all_kinds_of_faults() -> None:
    command = [sys.executable, "-P", "-m", "downpour.bench.world.simulate_job", "--seeds=1..300", "--processes=1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


def test_runs_of_a_seed_in_new_processes_have_one_digest(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(SimulateJobSettings(seed=5, repeat=2, processes=1)) == 0
    assert "2 runs with 1 digest:" in capsys.readouterr().out


def test_other_seeds_give_other_runs() -> None:
    shape = shape_of(2, SimulateJobSettings(faults="none"))
    assert run_job(2, shape).digest != run_job(3, shape).digest


def test_a_lost_update_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the checks are worth: a shard that answers a push without applying it."""
    accept = Shard.accept

    def forgetful(self: Shard, push: Push, gradient: np.ndarray, owned: bool = True) -> Result:
        return accept(self, push, np.zeros_like(gradient) if push.seq == 2 else gradient, owned)

    monkeypatch.setattr(Shard, "accept", forgetful)
    assert problems_of(4, faults="none")


def test_faults_are_written_as_text_and_read_again() -> None:
    faults = [Fault("kill", "ps-0", 1.5), Fault("stop", "worker-1", 0.25, 12.0), Fault("killat", "ps-1", 300)]
    assert parse_faults(written(faults)) == faults


def test_a_fault_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="must be KIND:TARGET@AT"):
        Fault.parse("explode:ps-0@1")


def test_a_job_without_a_launcher_reports_that_it_failed() -> None:
    shape = shape_of(4, SimulateJobSettings(faults="kill:worker-0@0.5 kill:worker-1@0.5 kill:worker-2@0.5"))
    alone = JobShape(shape.settings, shape.samples, shape.faults, restarts=False)
    assert any("no worker for 600 s" in problem for problem in run_job(4, alone).problems)


@pytest.mark.parametrize("seed", range(1, 41))
def test_no_fault_of_any_kind_loses_anything(seed: int) -> None:
    assert problems_of(seed) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of the end of its parent")
def test_no_process_outlives_a_killed_simulation() -> None:
    command = [sys.executable, "-P", "-m", "downpour.bench.world.simulate_job", "--seeds=1..20000", "--processes=1"]
    with subprocess.Popen(command, env=module_environment(), stdout=subprocess.DEVNULL) as parent:
        try:
            wait_until(lambda: psutil.Process(parent.pid).children(), "a process of the pool")
            (child,) = psutil.Process(parent.pid).children()
            wait_until(lambda: child.cpu_times().user > 1, "its first jobs")
        finally:
            parent.kill()
    child.wait(60)
