"""Faults that simulated worlds have found, each with the smallest job that showed it."""

from __future__ import annotations

from typing import Any

from downpour.bench.world.faults import parse_faults
from downpour.bench.world.job import run_job
from downpour.bench.world.job_shape import JobResult, JobShape
from downpour.bench.world.seeded_job import SimulateJobSettings, shape_of

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


def test_a_coordinator_that_starts_over_can_void_the_weights_of_a_worker_that_died() -> None:
    """A shard had counted more initialisations than the new coordinator, and ignored its command: the job waited."""
    faults = parse_faults("killcall:worker-1/Ready@1 kill:ps-0@1.4 kill:worker-1@1.618402")
    settings = {**JOB, "shards": 2, "checkpoint_every": "off"}
    assert run_job(5, JobShape(settings, 48, tuple(faults), slow_links=True)).problems == []


def test_a_shard_that_cannot_confirm_the_end_of_its_job_is_noted() -> None:
    """Its newest records were lost with it, and the summary said nothing."""
    for tenth in range(6):
        assert run(5, f"stop:ps-1@{0.6 + tenth / 10:g}+10", shards=2, mode="bsp").problems == []


def test_a_worker_that_waits_for_a_shard_to_acknowledge_it_keeps_its_session() -> None:
    """Its session expired while it was registered: it registered again and again, with a note each time."""
    faults = "kill:ps-1/worker-0/worker-1@1.424537 cut:ps-0/ps-1@1.413938+32.202"
    result = run_job(6, shape_of(6, SimulateJobSettings(shards=2, workers=3, faults=faults)))
    assert result.problems == []
    assert sum("has sent no heartbeat" in line for line in result.journal) <= 3


def test_a_shard_that_is_asked_to_end_while_its_connection_is_broken_has_not_ended_well() -> None:
    """Its exit status was 0, as if no job had begun: nothing started it again, and the job failed."""
    faults = "reset:ps-0@0.706505 term:ps-1/worker-0@0.851895"
    assert run_job(454, shape_of(454, SimulateJobSettings(faults=faults))).problems == []


def test_a_worker_whose_connection_breaks_while_it_initialises_goes_on_although_others_train() -> None:
    """It sent the initial weights again when they had been trained, was refused, and gave up."""
    settings = SimulateJobSettings(
        shards=2, workers=3, epochs=2, profile="calls", faults="resetcall:ps-1/Exchange@2 killcall:ps-1/ShardLink@5"
    )
    assert run_job(27, shape_of(27, settings)).problems == []


def test_a_call_whose_caller_asks_again_takes_no_lease_from_it() -> None:
    """The server had not noticed the end of a long poll, which took back what the worker had received since."""
    faults = "pause:ps-0@0.617151+0.207 reset:worker-1@0.607284"
    assert run_job(576, shape_of(576, SimulateJobSettings(faults=faults))).problems == []


def test_a_trace_that_has_lost_records_keeps_no_undone_updates_when_its_job_returns_to_a_checkpoint_again() -> None:
    """Positions in the file were shifted by the lost records, and nothing reported what was wrong in it."""
    settings = SimulateJobSettings(profile="power", faults="damage:ps-0@2.250349 damage:ps-0@0.961502")
    assert run_job(829, shape_of(829, settings)).problems == []


def test_the_trace_of_a_shard_that_sends_no_records_after_its_job_has_started_over_can_be_read() -> None:
    """It had been truncated and was not flushed any more: after a power failure it was torn."""
    faults = "lose:ps-1@20 term:ps-1@0.999065 reset:ps-2@1.388148 hang:worker-1@2+4.888"
    assert run_job(2699, shape_of(2699, SimulateJobSettings(faults=faults))).problems == []


def test_a_shard_that_is_lost_while_the_checkpoint_is_read_is_restored_when_it_is_back() -> None:
    """The others were restored without it, and the job waited for its weights for ever."""
    settings = SimulateJobSettings(profile="partitions", faults="cut:ps-0/ps-2@0.52215+38.147 kill:ps-0@0.484097")
    assert run_job(2587, shape_of(2587, settings)).problems == []


def test_the_workers_of_a_restored_shard_are_checked_although_its_counts_are_those_of_the_shard_before() -> None:
    """A reply waited for another change of the shard: the counts that show a change had begun again from 0."""
    faults = "kill:worker-0@0.841655 stop:worker-1@1.17586+8.209 kill:ps-0@1.311766"
    assert run_job(3481, shape_of(3481, SimulateJobSettings(profile="barriers", faults=faults))).problems == []


def test_a_worker_that_waits_for_samples_stays_if_it_is_signalled_like_its_job() -> None:
    """The job had begun to finish, and did not say any more that it drained: its only worker left, without saving."""
    faults = "termall:all@1.621527"
    assert run_job(9371, shape_of(9371, SimulateJobSettings(faults=faults))).problems == []


def test_a_user_whose_request_to_pause_is_not_answered_resumes_the_job() -> None:
    """The server was stopped, and executed the request later."""
    faults = "pause:ps-0@1.205841+2.957 stop:ps-0/worker-0/worker-1/worker-2@0.70379+32.61 readonly:ps-0@1.406687+4.305"
    assert run_job(8875, shape_of(8875, SimulateJobSettings(faults=faults))).problems == []


def test_an_operator_starts_a_shard_again_that_ended_before_its_coordinator_had_answered() -> None:
    faults = "cut:ps-1/worker-0@0.836462+0.288 power:ps-1@0.592214 term:ps-1/worker-0@0.917474 reset:worker-2@1.150786"
    assert run_job(7667, shape_of(7667, SimulateJobSettings(faults=faults))).problems == []


def test_workers_of_kasync_do_not_wait_for_each_other_on_different_shards() -> None:
    """The last two workers of an epoch waited until a lease was taken from one of them, which lost its session."""
    faults = "resetcall:worker-2/Lease@3 lose:worker-3@1 lose:worker-0@6"
    shape = shape_of(14196, SimulateJobSettings(faults=faults, profile="resets"))
    assert run_job(14196, shape).problems == []


def test_a_byzantine_worker_that_repeats_a_push_claims_nothing_that_a_shard_reads() -> None:
    """The shard answered with the outcome of the push, which it had applied before its reply was lost."""
    settings = SimulateJobSettings(faults="lie:worker-0@6 lose:worker-0@16")
    assert run_job(13265, shape_of(13265, settings)).problems == []
