"""The faults of a simulated world: which are drawn, how they are written, and that jobs survive each of them."""

from __future__ import annotations

import random
from typing import Any

import pytest

from downpour.bench.world.faults import CALLS, KINDS, SEVERAL, Fault, draw, parse_faults, written
from downpour.bench.world.job import SimulatedJob, run_job
from downpour.bench.world.job_shape import JobResult, JobShape
from downpour.bench.world.seeded_job import SimulateJobSettings, shape_of
from downpour.protos import parameter_server_pb2 as pb

OF_SCRIPTS, OF_USERS = ("Barrier", "SetLearningRates"), (
    "Status", "Watch", "Stop", "Pause", "Change", "TakeCheckpoint", "AddWorker",
)  # fmt: skip
METHODS = [
    method.name
    for service in pb.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if method.name not in (*OF_SCRIPTS, *OF_USERS, "ShardLink")
]


def run(seed: int, faults: str, **settings: Any) -> JobResult:
    shape = shape_of(seed, SimulateJobSettings(faults="none", mode="async", workers=3, shards=2))
    return run_job(seed, JobShape(**{**shape.__dict__, **settings, "faults": tuple(parse_faults(faults))}))


def test_faults_that_are_drawn_are_written_as_text_and_read_again() -> None:
    rng = random.Random(1)
    faults = [fault for kind in KINDS for fault in draw(rng, 3, 3, [kind], 30)]
    assert parse_faults(written(faults)) == faults
    assert {fault.kind for fault in faults} == set(KINDS)
    several = {fault.kind for fault in faults if len(fault.targets) > 1}
    assert several == {*SEVERAL, "cut"}
    assert all("/" in fault.target for fault in faults if fault.kind in CALLS)


def test_several_processes_die_at_the_same_time() -> None:
    job = SimulatedJob(
        3, shape_of(3, SimulateJobSettings(faults="kill:ps-1/worker-0/worker-2@0.9", shards=2, workers=3))
    )
    assert job.run().problems == []
    ends = [line.split()[0] for line in job.world.journal if "ended with -9" in line]
    assert len(ends) == 3 and len(set(ends)) == 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", CALLS)
def test_a_worker_whose_connection_breaks_or_that_dies_at_any_call_loses_nothing(kind: str, method: str) -> None:
    """Every call of a worker is repeated if its connection breaks, so that all must be idempotent."""
    for worker in range(3):
        lasts = "+6" if kind == "stopcall" else ""
        result = run(3, f"{kind}:worker-{worker}/{method}@1{lasts}", model_padding_bytes=2_500_000)
        assert result.problems == []


@pytest.mark.parametrize("target", ["ps-0/Register", "ps-0/Upload", "ps-0/Report", "ps-1/ShardLink", "ps-1/Exchange"])
def test_a_server_that_dies_at_any_call_loses_nothing(target: str) -> None:
    for number in range(1, 4):
        assert run(3, f"killcall:{target}@{number}", model_padding_bytes=2_500_000).problems == []


def test_a_shard_that_is_stopped_between_any_two_of_its_messages_mixes_no_cuts() -> None:
    """A part of its state for an abandoned cut arrives while the next one is under way."""
    base = shape_of(6, SimulateJobSettings(faults="none", mode="async", workers=3, shards=2, profile="partitions"))
    for number in range(4, 30):
        stopped = (Fault("stopcall", "ps-1/ShardLink", number, 5.2),)
        assert run_job(6, JobShape(**{**base.__dict__, "faults": stopped})).problems == []


def test_an_operator_restarts_a_process_late() -> None:
    early, late = run(3, "kill:worker-1@0.6"), run(3, "kill:worker-1@0.6", restart_s=8.0)
    assert early.problems == late.problems == []


def test_a_damaged_file_is_never_used_without_a_note() -> None:
    for seed in range(12):
        assert run(seed, "damage:ps-0@1.1").problems == []


@pytest.mark.parametrize("mode", ["async", "ssp:1", "bsp"])
def test_requests_of_users_disturb_no_job(mode: str) -> None:
    for tenth in range(4, 10):
        asked = f"change:ps-0@{tenth / 10} pause:ps-0@{tenth / 10}+3 checkpoint:ps-0@{tenth / 10 + 0.1}"
        shape = shape_of(3, SimulateJobSettings(faults=f"{asked} kill:ps-1@1.1", mode=mode, shards=2, workers=3))
        assert run_job(3, shape).problems == []


def test_a_worker_that_takes_over_sends_its_weights_after_those_of_the_dead_one_are_void() -> None:
    """On a slow link they arrived before the command to void them, and the job never began."""
    found = shape_of(232, SimulateJobSettings(faults="clock:ps-1@0.658639+5 killcall:worker-0/Ready@1"))
    assert run_job(232, found).problems == []


def test_a_job_whose_two_newest_checkpoints_are_damaged_continues_from_the_one_before() -> None:
    for faults in ("damage:ps-0@1.560265 damage:ps-0@0.789072", "damage:ps-0@1.2 damage:ps-0@0.9"):
        assert run_job(4, shape_of(4, SimulateJobSettings(profile="damage", faults=faults))).problems == []


def test_a_disk_that_cannot_be_written_for_the_last_seconds_of_a_job_is_reported_in_its_log() -> None:
    faults = "readonly:ps-0@0.884548+1.593 termall:all@1.03925 stop:ps-2@0.805003+2.555"
    result = run_job(1756, shape_of(1756, SimulateJobSettings(faults=faults)))
    assert result.problems == [] and any("summary.json cannot be written" in line for line in result.journal)


def test_replies_that_do_not_arrive_lose_and_repeat_nothing() -> None:
    """Of every message that a worker receives, the connection breaks once just before it arrives."""
    for number in range(1, 40):
        shape = shape_of(3, SimulateJobSettings(faults="none", mode="async", workers=2, shards=2))
        lost = JobShape(**{**shape.__dict__, "faults": (Fault("lose", "worker-1", number),)})
        assert run_job(3, lost).problems == []


def test_a_signal_to_all_processes_saves_the_model() -> None:
    for tenth in range(5, 20):
        shape = shape_of(3, SimulateJobSettings(faults="none", mode="async", workers=2, shards=2))
        faults = tuple(parse_faults(f"termall:all@{tenth / 10}"))
        assert run_job(3, JobShape(**{**shape.__dict__, "faults": faults})).problems == []
