"""Faults that simulated worlds have found, each with the smallest job that showed it."""

from __future__ import annotations

from typing import Any

from downpour.bench.world.faults import parse_faults
from downpour.bench.world.job import run_job
from downpour.bench.world.job_shape import JobResult, JobShape
from downpour.bench.world.simulate_job import SimulateJobSettings, shape_of

JOB: dict[str, Any] = {
    "shards": 1, "workers": 3, "epochs": 2, "mode": "async", "batch_size": 4, "lease_batches": 2, "session_s": 5.0,
    "checkpoint_every": "0.2s", "seed": 1, "learning_rate": 0.125, "optimizer": "sgd", "transport": "grpc",
    "record": "off", "tensorboard": False, "validation_split": 0.1,
}  # fmt: skip


def run(seed: int, faults: str, **settings: Any) -> JobResult:
    return run_job(seed, JobShape({**JOB, **settings}, 48, tuple(parse_faults(faults))))


def test_the_trace_survives_a_power_failure_after_its_first_checkpoint() -> None:
    """The name of a new trace was not flushed with its content: a resumed job began it again without a word."""
    for seed in range(10):
        assert run(seed, "power:ps-0@1.1").problems == []


def test_a_server_that_waits_for_its_disk_admits_no_worker_of_the_old_generation() -> None:
    """Workers registered before the new generation began, and trained weights that were thrown away later."""
    for seed in range(6):
        result = run(seed, "full:ps-0@0.9+2.5 power:ps-0@1.1", shards=2)
        assert [problem for problem in result.problems if "generation" in problem] == []
        assert not any("initial weights must be set before" in line for line in result.journal)


def test_a_shard_that_dies_as_the_job_ends_is_noted() -> None:
    """Its newest records are lost with it, and the summary said nothing."""
    for tenth in range(8):
        assert run(3, f"kill:ps-1@{1.2 + tenth / 10}", shards=2).problems == []


def test_a_worker_that_is_asked_to_stop_while_it_leaves_an_absent_server_stops() -> None:
    """The signal raised an exception that nothing caught, with a traceback and exit status 1."""
    shape = shape_of(798, SimulateJobSettings(faults="term:worker-2@2.06388", mode="localsgd:2"))
    assert run_job(798, shape).problems == []


def test_a_power_failure_just_after_a_change_of_the_settings_leaves_a_run_that_can_be_resumed() -> None:
    """The file of the changes was rewritten when the change was made, and not flushed: it could be torn afterwards."""
    for seed in range(8):
        assert run(seed, f"change:ps-0@{0.6 + seed / 50} power:ps-0@1.1").problems == []
