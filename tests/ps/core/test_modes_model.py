"""Every mode under random joins, leaves, rests and pushes, beside its definition without any bookkeeping."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from downpour.ps.core.consistency import consistency_of
from downpour.ps.core.optimizer import Optimizer
from downpour.ps.core.push import Outcome, Push, Result
from downpour.ps.core.rules.hyperparameters import Hyperparameters
from downpour.ps.core.shard import Shard

WORKERS, N, RATE = 5, 2, 0.5
MODES = (
    "async", "bsp", "backup:2", "backup:4", "ssp:0", "ssp:2", "ksync:3", "kasync:1", "kasync:3", "softsync:2",
    "softsync:7", "ringmaster:1", "ringmaster:3", "rennala:2", "rennala:4",
)  # fmt: skip


@dataclass
class Definition:
    """What the modes say, in lists: who counts, what waits, what has come of it.

    Attributes:
        clocks: Completed steps of who counts.
        pending: Worker, seq, base version, gradient and samples of what waits, by arrival.
        outcomes: Worker, seq, outcome, version, staleness and reason, in order.
    """

    mode: str
    version: int = 0
    weights: np.ndarray = field(default_factory=lambda: np.zeros(N))
    clocks: dict[int, int] = field(default_factory=dict)
    least: int = 0
    pending: list[tuple[int, int, int, np.ndarray, int]] = field(default_factory=list)
    outcomes: list[tuple[int, int, Outcome, int, int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        name, _, number = self.mode.partition(":")
        self.name, self.number = name, int(number or 0)

    def counts(self, worker: int) -> None:
        self.clocks.setdefault(worker, self.least)
        self._look()

    def goes(self, worker: int) -> None:
        self.clocks.pop(worker, None)
        self._look()
        self._settle()

    def push(self, worker: int, seq: int, base: int, gradient: np.ndarray, samples: int) -> None:
        self.counts(worker)
        self.clocks[worker] += 1
        self._look()
        staleness = self.version - base
        reason = {
            "backup": "late" * (staleness > 0),
            "ksync": "late" * (staleness > 0),
            "rennala": "discarded" * (staleness > 0),
            "ringmaster": "stale" * (staleness >= self.number),
        }.get(self.name, "")
        if reason:
            self.outcomes.append((worker, seq, Outcome.DROPPED, self.version, staleness, reason))
            return
        self.pending.append((worker, seq, base, gradient, samples))
        self._settle()

    def waits(self, worker: int) -> bool:
        if self.name == "ssp":
            return worker in self.clocks and self.clocks[worker] - self.least > self.number
        return self.name in ("bsp", "backup", "ksync", "kasync") and worker in [push[0] for push in self.pending]

    def _look(self) -> None:
        if self.clocks:
            self.least = min(self.clocks.values())

    def _settle(self) -> None:
        while self.pending and (group := self._group()):
            for push in group:
                self.pending = [other for other in self.pending if other is not push]
            samples = sum(push[4] for push in group)
            self.weights = self.weights - RATE * sum(push[3] * push[4] for push in group) / samples
            self.version += 1
            for worker, seq, base, _, _ in group:
                self.outcomes.append((worker, seq, Outcome.APPLIED, self.version, self.version - 1 - base, ""))

    def _group(self) -> list[tuple[int, int, int, np.ndarray, int]]:
        senders = {push[0] for push in self.pending}
        if self.name == "bsp":
            return sorted(self.pending, key=lambda push: push[0]) if set(self.clocks) <= senders else []
        if self.name in ("backup", "ksync", "kasync"):
            needed = max(1, min(self.number, len(self.clocks)))
            first = [push for i, push in enumerate(self.pending) if push[0] not in [p[0] for p in self.pending[:i]]]
            return sorted(first[:needed], key=lambda push: push[0]) if len(first) >= needed else []
        if self.name in ("softsync", "rennala"):
            return self.pending[: self.number] if len(self.pending) >= self.number else []
        return self.pending[:1]


class Both:
    """The shard and the definition, given the same."""

    def __init__(self, mode: str, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.definition, self.outcomes = Definition(mode), list[tuple[int, int, Outcome, int, int, str]]()
        rule = Optimizer("sgd", Hyperparameters(learning_rate=RATE), N)
        self.shard = Shard(np.zeros(N, np.float32), rule, consistency_of(mode), on_outcome=self._outcome)
        self.lives: dict[int, int] = {}
        self.incarnations, self.seqs, self.bases = [0] * WORKERS, [0] * WORKERS, [0] * WORKERS
        self.waiting: set[int] = set()
        self.schedule: list[str] = []

    def _outcome(self, push: Push, result: Result) -> None:
        self.outcomes.append((push.worker, push.seq, result.outcome, result.version, result.staleness, result.reason))

    def step(self) -> None:
        worker = int(self.rng.integers(WORKERS))
        act = self.rng.choice(["join", "leave", "rest", "resume"] + ["push"] * 16)
        if act == "join":
            self._join(worker)
        elif worker not in self.lives:
            self._join(worker)
        elif act != "push" or worker not in self.waiting:
            getattr(self, f"_{act}")(worker)
        for other in [w for w in self.waiting if self.shard.may_proceed(w)]:
            self.waiting.remove(other)
            self.bases[other] = self.shard.version

    def _join(self, worker: int) -> None:
        self.schedule.append(f"join {worker}")
        self.incarnations[worker] += 1
        self.lives[worker], self.bases[worker] = self.incarnations[worker], self.shard.version
        self.waiting.discard(worker)
        self.shard.join(worker, self.incarnations[worker])
        self.definition.counts(worker)

    def _leave(self, worker: int) -> None:
        self.schedule.append(f"leave {worker}")
        del self.lives[worker]
        self.waiting.discard(worker)
        self.shard.leave(worker)
        self.definition.goes(worker)

    def _rest(self, worker: int) -> None:
        self.schedule.append(f"rest {worker}")
        self.shard.rest(worker)
        self.definition.goes(worker)

    def _resume(self, worker: int) -> None:
        self.schedule.append(f"resume {worker}")
        self.shard.resume(worker)
        self.definition.counts(worker)

    def _push(self, worker: int) -> None:
        self.seqs[worker] += 1
        gradient, samples = self.rng.integers(-8, 9, N).astype(np.float32), int(self.rng.integers(1, 4))
        seq, base = self.seqs[worker], self.bases[worker]
        self.schedule.append(f"push {worker} from {base}, {samples} samples of {gradient}")
        self.shard.push(Push(worker, self.lives[worker], seq, base, samples), gradient)
        self.definition.push(worker, seq, base, gradient.astype(float), samples)
        self.waiting.add(worker)

    def check(self) -> None:
        assert self.outcomes == self.definition.outcomes
        assert self.shard.version == self.definition.version
        assert self.shard.consistency.clocks == self.definition.clocks
        for worker in self.lives:
            assert self.shard.may_proceed(worker) is not self.definition.waits(worker), worker
        buffer, _ = self.shard.pull()
        np.testing.assert_allclose(buffer.array, self.definition.weights, rtol=1e-5, atol=1e-4)
        self.shard.release(buffer)


@pytest.mark.parametrize("mode", MODES)
def test_a_shard_does_what_the_mode_is_defined_to_do(mode: str) -> None:
    for seed in range(8):
        both = Both(mode, seed)
        for _ in range(150):
            both.step()
            try:
                both.check()
            except AssertionError as error:
                raise AssertionError(f"seed {seed}: " + "; ".join(both.schedule)) from error
        assert both.definition.version > 5, seed
