"""Every mode on a shard, step by step: who waits, what is averaged, what is dropped and why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from downpour.ps.config import JobSettings, ServerSettings
from downpour.ps.config_checks import refusal_of, warnings_of
from downpour.ps.core.apply import UpdateOptions
from downpour.ps.core.consistency import MODES, consistency_of
from downpour.ps.core.optimizer import Optimizer
from downpour.ps.core.push import Outcome, Push, Result
from downpour.ps.core.registry import form, forms, read
from downpour.ps.core.rules.hyperparameters import Hyperparameters
from downpour.ps.core.schedules import SCHEDULES, schedule_of
from downpour.ps.core.shard import Shard

N = 3


class Cluster:
    """A shard at zero with η = 1 and workers that push constants; notes every final outcome."""

    def __init__(self, mode: str, workers: int = 3, state: int = 0, **settings: object) -> None:
        rule = Optimizer("sgd", Hyperparameters(learning_rate=1.0), N)
        self.shard = Shard(np.zeros(N + state, np.float32), rule, consistency_of(mode), **settings)  # type: ignore[arg-type]
        self.results: list[tuple[int, Result]] = []
        self.shard.observe(lambda push, result: self.results.append((push.worker, result)))
        self.seqs = [0] * workers
        self.bases = [0] * workers
        for worker in range(workers):
            self.shard.join(worker, 1)

    def push(self, worker: int, value: float = 1.0, samples: int = 1, fetch: bool = True) -> Result:
        self.seqs[worker] += 1
        push = Push(worker, 1, self.seqs[worker], self.bases[worker], samples=samples)
        result = self.shard.push(push, np.full(self.shard.size, value, np.float32))
        for each in range(len(self.bases)) if fetch else []:
            if each == worker and self.may(each):
                self.bases[each] = self.shard.version
        return result

    def refetch(self) -> None:
        self.bases = [self.shard.version] * len(self.bases)

    def may(self, worker: int) -> bool:
        return self.shard.may_proceed(worker)

    @property
    def weight(self) -> float:
        return float(self.shard.pull()[0].array[0])


def test_bsp_averages_all_by_samples_at_a_barrier() -> None:
    cluster = Cluster("bsp")
    assert cluster.push(0, 1.0, samples=1).outcome == Outcome.BUFFERED
    assert cluster.push(2, 5.0, samples=2).outcome == Outcome.BUFFERED
    assert not cluster.may(0) and cluster.shard.version == 0
    result = cluster.push(1, 2.0, samples=1)
    assert (result.outcome, result.version, result.staleness) == (Outcome.APPLIED, 1, 0)
    assert cluster.weight == -(1 + 2 + 2 * 5) / 4
    assert all(cluster.may(worker) for worker in range(3))
    assert [worker for worker, _ in cluster.results] == [0, 1, 2]


def test_bsp_sums_in_worker_order_for_any_order_of_arrival() -> None:
    values, ends = [1e8, 1.0, -1e8], set()
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]):
        cluster = Cluster("bsp")
        for worker in order:
            cluster.push(worker, values[worker])
        ends.add(cluster.weight)
    assert len(ends) == 1


def test_state_is_averaged_at_a_barrier_and_added_without_one() -> None:
    for mode, expected in (("bsp", (1 + 2 + 6) / 3), ("async", 1 + 2 + 6)):
        cluster = Cluster(mode, state=1)
        for worker, value in enumerate((1.0, 2.0, 6.0)):
            cluster.push(worker, value)
        assert cluster.shard.pull()[0].array[-1] == expected


@pytest.mark.parametrize("mode", ["bsp", "backup:3", "ksync:3", "kasync:3"])
@pytest.mark.parametrize("going", ["leave", "rest"])
def test_a_worker_that_leaves_never_blocks_the_others(mode: str, going: str) -> None:
    cluster = Cluster(mode)
    cluster.push(0)
    cluster.push(1)
    assert cluster.shard.version == 0
    getattr(cluster.shard, going)(2)
    assert cluster.shard.version == 1 and cluster.may(0) and cluster.may(1)
    assert cluster.weight == -1.0
    cluster.refetch()
    cluster.push(0)
    assert cluster.shard.version == 1
    cluster.push(1)
    assert cluster.shard.version == 2


def test_a_worker_that_rested_counts_again_from_its_next_push() -> None:
    cluster = Cluster("bsp", workers=2)
    cluster.shard.rest(1)
    cluster.push(0)
    assert cluster.shard.version == 1
    cluster.refetch()
    cluster.push(1)
    assert cluster.shard.version == 1, "both count again"
    cluster.push(0)
    assert cluster.shard.version == 2


def test_a_gradient_with_nan_does_not_stand_at_the_barrier() -> None:
    cluster = Cluster("bsp", workers=2)
    cluster.push(0)
    assert cluster.push(1, np.nan).reason == "nonfinite"
    assert cluster.may(1) and cluster.shard.version == 0
    cluster.push(1, 3.0)
    assert cluster.weight == -2.0


@pytest.mark.parametrize("mode", ["backup:2", "ksync:2"])
def test_backup_applies_the_first_gradients_and_informs_late_workers(mode: str) -> None:
    cluster = Cluster(mode)
    cluster.push(2, 4.0)
    cluster.push(0, 2.0)
    assert cluster.shard.version == 1 and cluster.weight == -3.0
    late = cluster.push(1, 100.0)
    assert (late.outcome, late.reason, late.staleness, late.learning_rate) == (
        Outcome.DROPPED,
        "late",
        1,
        0.0,
    )
    assert cluster.may(1) and cluster.weight == -3.0


def test_kasync_waits_for_distinct_workers_and_takes_the_stale() -> None:
    cluster = Cluster("kasync:2")
    cluster.push(0)
    assert not cluster.may(0)
    cluster.push(0)  # one that computes while it waits
    assert cluster.shard.version == 0, "two pushes of one worker are not two workers"
    cluster.push(1, 3.0)
    assert cluster.shard.version == 1 and cluster.weight == -2.0
    stale = cluster.push(2, 5.0)
    assert stale.outcome == Outcome.APPLIED and stale.staleness == 1
    assert cluster.weight == -2.0 - (1 + 5) / 2


@pytest.mark.parametrize(
    ("mode", "workers"),
    [
        ("kasync:2", 2),
        ("kasync:2", 4),
        ("kasync:3", 4),
        ("bsp", 3),
        ("backup:2", 2),
        ("backup:2", 4),
        ("ksync:3", 4),
        ("rennala:2", 3),
        ("ssp:1", 3),
        ("softsync:2", 3),
    ],
)
@pytest.mark.parametrize("shards", [2, 3])
def test_workers_never_wait_for_each_other_on_several_shards(mode: str, workers: int, shards: int) -> None:
    """The slices of a push reach the shards in any order, and whoever waits on no shard continues in any order."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        rule = Optimizer("sgd", Hyperparameters(learning_rate=1.0), N)
        held = [Shard(np.zeros(N, np.float32), rule, consistency_of(mode, shard)) for shard in range(shards)]
        for shard in held:
            for worker in range(workers):
                shard.join(worker, 1)
        under_way: list[tuple[int, int]] = []  # worker and shard of each slice
        seqs = [0] * workers
        for _ in range(200):
            waiting = {worker for worker, _ in under_way}
            free = [
                worker for worker in range(workers)
                if worker not in waiting and all(shard.may_proceed(worker) for shard in held)
            ]  # fmt: skip
            assert free or under_way, f"all workers wait, seed {seed}"
            if free and (not under_way or rng.random() < 0.5):
                worker = int(rng.choice(free))
                seqs[worker] += 1
                under_way += [(worker, shard) for shard in range(shards)]
            else:
                worker, index = under_way.pop(int(rng.integers(len(under_way))))
                held[index].push(Push(worker, 1, seqs[worker], held[index].version), np.ones(N, np.float32))
        for shard in held:
            shard.flush()
            assert shard.pending == []


def test_kasync_keeps_few_pushes_waiting_on_shards_where_workers_do_not_wait() -> None:
    """Each update of the first shard brings K pushes of distinct workers to the others: what is left stays bounded."""
    workers, count = 5, 3
    most = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        rule = Optimizer("sgd", Hyperparameters(learning_rate=1.0), N)
        first, second = (Shard(np.zeros(N, np.float32), rule, consistency_of(f"kasync:{count}", i)) for i in range(2))
        for worker in range(workers):
            first.join(worker, 1)
            second.join(worker, 1)
        seqs = [0] * workers
        for _ in range(1000):
            worker = int(rng.choice([worker for worker in range(workers) if first.may_proceed(worker)]))
            seqs[worker] += 1
            for shard in (second, first):
                shard.push(Push(worker, 1, seqs[worker], shard.version), np.ones(N, np.float32))
            most = max(most, len(second.pending))
    assert most <= 2 * workers


def test_ssp_bounds_the_lead_of_every_worker_by_the_slack() -> None:
    cluster = Cluster("ssp:2")
    for _ in range(2):
        cluster.push(0)
        assert cluster.may(0)
    cluster.push(0)
    assert not cluster.may(0), "clock 3, smallest 0, slack 2"
    before = cluster.shard.gate_state
    cluster.push(1)
    assert cluster.shard.gate_state == before and not cluster.may(0)
    cluster.push(2)
    assert cluster.shard.gate_state != before and cluster.may(0)


def test_a_worker_that_joins_late_starts_at_the_smallest_clock() -> None:
    cluster = Cluster("ssp:1", workers=2)
    for _ in range(5):
        cluster.push(0)
        cluster.push(1)
    cluster.push(0)
    cluster.shard.join(7, 1)
    assert cluster.shard.consistency.clocks == {0: 6, 1: 5, 7: 5}
    assert cluster.may(0) and cluster.may(7)
    cluster.push(0)
    assert not cluster.may(0)


def test_softsync_averages_groups_and_no_worker_waits() -> None:
    cluster = Cluster("softsync:3")
    assert cluster.push(0, 1.0).outcome == Outcome.BUFFERED
    assert cluster.push(0, 2.0).outcome == Outcome.BUFFERED
    assert cluster.may(0)
    assert cluster.push(1, 6.0).outcome == Outcome.APPLIED
    assert cluster.weight == -3.0
    cluster.push(1)
    assert cluster.shard.version == 1


def test_flush_applies_the_gradients_that_still_wait() -> None:
    for mode in ("softsync:3", "rennala:5", "kasync:3", "bsp"):
        cluster = Cluster(mode)
        cluster.push(0, 1.0)
        cluster.push(1, 3.0)
        cluster.shard.flush()
        assert cluster.shard.version == 1 and cluster.weight == -2.0, mode
        assert len(cluster.results) == 2 and cluster.may(0)
        cluster.shard.flush()
        assert cluster.shard.version == 1


def test_ringmaster_applies_what_is_less_than_r_versions_old() -> None:
    cluster = Cluster("ringmaster:2")
    cluster.push(0)
    assert cluster.push(1).staleness == 1
    dropped = cluster.push(2)
    assert (dropped.outcome, dropped.reason, dropped.staleness) == (Outcome.DROPPED, "stale", 2)
    assert cluster.push(2).outcome == Outcome.APPLIED, "it was sent fresh weights"


def test_rennala_collects_at_the_current_version_and_discards_others() -> None:
    cluster = Cluster("rennala:2")
    cluster.push(0, 2.0)
    cluster.push(0, 4.0)
    assert cluster.shard.version == 1 and cluster.weight == -3.0
    discarded = cluster.push(1)
    assert (discarded.outcome, discarded.reason) == (Outcome.DROPPED, "discarded")


def test_localsgd_adds_differences() -> None:
    cluster = Cluster("localsgd:4", state=1)
    cluster.push(0, -2.0)
    cluster.push(1, 0.5)
    assert cluster.shard.pull()[0].array.tolist() == [-1.5] * (N + 1)
    assert cluster.results[1][1].learning_rate == 1.0


def test_elastic_averaging_moves_both_by_alpha() -> None:
    cluster = Cluster("easgd:0.25,4")
    cluster.push(0, 8.0)
    assert cluster.weight == 2.0
    own, version = cluster.shard.answer(0)
    assert version == 1 and (own.array == 6.0).all()
    assert (cluster.shard.answer(1)[0].array == 2.0).all(), "who has exchanged nothing gets the shard's"
    assert cluster.push(0, np.nan).reason == "nonfinite"
    assert (cluster.shard.answer(0)[0].array == 2.0).all(), "and who has lost its weights"


def test_elastic_answers_are_repeated_and_their_memory_is_given_back() -> None:
    cluster = Cluster("easgd:0.5,1", workers=2)
    for _ in range(20):
        for worker in (0, 1):
            cluster.push(worker, 4.0)
            buffer, _ = cluster.shard.answer(worker)
            again, _ = cluster.shard.answer(worker)
            assert again is buffer
            cluster.shard.release(buffer)
            cluster.shard.release(again)
    assert cluster.shard._pool.allocated <= 2 + 2


@pytest.mark.parametrize("mode", [row.example for row in MODES.values()])
def test_every_buffer_comes_back(mode: str) -> None:
    cluster = Cluster(mode, workers=2)
    for _ in range(30):
        for worker in (0, 1):
            if cluster.may(worker):
                cluster.push(worker)
    for worker in (0, 1):
        cluster.shard.leave(worker)
    cluster.shard.flush()
    pool = cluster.shard._pool
    assert len(pool._spare) == pool.allocated - 1, "all but the committed one"


# ------------------------------------------------------------------ names and what they need


@pytest.mark.parametrize("name", MODES)
def test_examples_are_of_their_row(name: str) -> None:
    row, _ = read(MODES[name].example, MODES)
    assert row is MODES[name] and row.doc
    assert form(name, row).startswith(name)


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        ("asynch", "did you mean async?"),
        ("bsp:2", "must be written bsp"),
        ("softsync", "must be written softsync:C"),
        ("softsync:0", "C a whole number of at least 1"),
        ("ssp:1.5", "S a whole number of at least 0"),
        ("easgd:1", "must be written easgd:RHO,K"),
        ("easgd:nan,2", "RHO a finite number above 0"),
    ],
)
def test_an_unknown_mode_is_refused_with_the_syntax(mode: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        consistency_of(mode)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"mode": "ksync:3", "workers": 2}, "waits for 3 workers"),
        ({"mode": "backup:9", "workers": 8}, "waits for 9 workers"),
        ({"mode": "easgd:0.5,4", "staleness_policy": "inverse"}, "exchanges weights"),
        ({"mode": "localsgd:4", "staleness_policy": "dc_asgd"}, "pushes differences"),
        ({"momentum_correction": True}, "takes from an optimizer's momentum"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_start(settings: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        JobSettings(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"mode": "softsync:5", "workers": 4}, "softsync averages 5 pushes of 4 workers"),
        (
            {"workers": 16, "optimizer": "momentum", "learning_rate": 0.1},
            "diverges where the curvature is above",
        ),
        ({"mode": "ringmaster:2", "workers": 8}, "much work will be lost"),
        ({"mode": "ksync:2", "workers": 3}, "not interrupted"),
        ({"mode": "easgd:8,1"}, "moving rate"),
        ({"mode": "bsp", "staleness_policy": "inverse"}, "changes nothing"),
        ({"mode": "localsgd:2", "optimizer": "adam"}, "is not used"),
    ],
)
def test_settings_that_are_unwise_are_warned_of(settings: dict[str, object], says: str) -> None:
    warnings = warnings_of(JobSettings(**settings))  # type: ignore[arg-type]
    assert any(says in warning for warning in warnings), warnings


def test_defaults_are_neither_refused_nor_warned_of() -> None:
    settings = JobSettings()
    assert refusal_of(settings) == "" and warnings_of(settings) == []


# ------------------------------------------------------------------ schedules


@pytest.mark.parametrize(
    ("schedule", "at"),
    [
        ("constant", {0: 1, 1000: 1}),
        ("linear:10", {0: 1, 5: 0.5, 10: 0, 99: 0}),
        ("linear:10,0.2", {0: 1, 5: 0.6, 10: 0.2}),
        ("cosine:10,0.1", {0: 1, 5: 0.55, 10: 0.1, 20: 0.1}),
        ("steps:5,0.5", {0: 1, 4: 1, 5: 0.5, 10: 0.25}),
        ("exponential:10,0.01", {0: 1, 5: 0.1, 10: 0.01}),
        ("inverse_root:3", {0: 1, 9: 0.5}),
    ],
)
def test_schedules(schedule: str, at: dict[int, float]) -> None:
    shape = schedule_of(schedule)
    assert {version: pytest.approx(shape(version)) for version in at} == at
    warm = schedule_of(schedule, warm_up=4)
    assert [warm(version) for version in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert warm(4) == shape(0) and warm(9) == shape(5)


def test_every_schedule_is_tested_and_listed() -> None:
    assert set(SCHEDULES) == {"constant", "linear", "cosine", "steps", "exponential", "inverse_root"}
    assert all(name in forms(SCHEDULES) for name in SCHEDULES)


def test_a_schedule_follows_the_version_and_the_reply_contains_the_rate() -> None:
    cluster = Cluster("async", options=UpdateOptions(schedule_of("steps:2,0.5")))
    assert [cluster.push(0).learning_rate for _ in range(5)] == [1.0, 1.0, 0.5, 0.5, 0.25]
    assert cluster.weight == -3.25 and cluster.shard.learning_rate == 0.25


@pytest.mark.parametrize("name", list(MODES))
@pytest.mark.parametrize("rate", [{"schedule": "cosine:100"}, {"warm_up": 10}])
def test_a_rate_that_workers_would_not_use_is_refused(name: str, rate: dict[str, Any]) -> None:
    """In modes whose steps the workers make, the servers' schedule would change nothing but the trace."""
    mode = MODES[name].example or name
    settings = ServerSettings(mode=mode, workers=4)
    if consistency_of(mode).payload == "gradient":
        assert ServerSettings(mode=mode, workers=4, **rate).schedule
        return
    assert refusal_of(settings) == ""
    with pytest.raises(ValueError, match="constant learning rate"):
        ServerSettings(mode=mode, workers=4, **rate)
