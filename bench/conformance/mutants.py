"""Mutants of the conformance suite: components with one fault each, with which a row must fail.

`tests/bench/conformance/test_validate.py` checks that every row fails with its mutant.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from downpour.bench.conformance.real_cluster import SteppingWorker
from downpour.bench.simulation.service_times import Draw, draws_of
from downpour.bench.simulation.virtual_time import Simulation, VirtualWorker
from downpour.protos.coverage import Coverage
from downpour.protos.frame import Buffer as Payload
from downpour.ps.core.buffers import Buffer
from downpour.ps.core.consistency import BSP, SSP, KSync, consistency_of
from downpour.ps.core.consistency_base import Consistency
from downpour.ps.core.push import Push, Result
from downpour.ps.core.shard import Shard
from downpour.ps.core.staleness import Compensation
from downpour.worker.exchange.client import Pulled
from downpour.worker.exchange.error_feedback import ErrorFeedback

# ------------------------------------------------------------------ shards


class OneStaler(Shard):
    """A shard that reports a staleness that is one too large."""

    def _conclude(self, push: Push, result: Result) -> Result:
        return super()._conclude(push, result._replace(staleness=result.staleness + 1))


class LateAnswer(Shard):
    """A shard that answers a push with the weights from before it, so that the pull is not atomic with the push."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        """Build a shard that has no previous weights yet."""
        super().__init__(*args, **keywords)
        self._before: Buffer | None = None

    def _commit(self, spare: Buffer) -> None:
        if self._before is not None:
            self._pool.drop(self._before)
        self._before = self._pool.hold(self._committed)
        super()._commit(spare)

    def answer(self, worker: int) -> tuple[Buffer, int]:
        """Return the weights of the previous version, `float32[n + m]`, and its number."""
        if self._before is None:
            return super().answer(worker)
        return self._pool.hold(self._before), self.version - 1


class LostPush(Shard):
    """A shard that reports every seventh push as applied and discards it."""

    def _commit(self, spare: Buffer) -> None:
        if self.version % 7 == 6:
            spare.array[:] = self._committed.array
        super()._commit(spare)


class OneVersionOff(Shard):
    """A shard that corrects gradients with the weights of the version after the one that was pulled."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        """Build a shard that keeps a copy of the weights of every version."""
        super().__init__(*args, **keywords)
        self._all = [self._committed.array.copy()]
        self._rule._base = lambda version: self._all[min(version + 1, len(self._all) - 1)]

    def _commit(self, spare: Buffer) -> None:
        super()._commit(spare)
        self._all.append(spare.array.copy())


class OneSided(Shard):
    """A shard whose elastic averaging moves the shard further towards the worker than the worker towards the shard."""

    def answer(self, worker: int) -> tuple[Buffer, int]:
        """Return the worker's own weights after half of their move has been undone, and the version."""
        buffer, version = super().answer(worker)
        if worker in self._replicas:
            buffer.array += (self._committed.array - buffer.array) * np.float32(0.5)
        return buffer, version


# ------------------------------------------------------------------ modes and policies


class _NeverWaits(BSP):
    def may_proceed(self, worker: int, senders: Any) -> bool:
        return True


class _NeverRestarts(KSync):
    restarts = False


def NoBarrier(mode: str) -> Consistency:  # noqa: N802 — mutants read like classes
    """Return a mode; instead of BSP, one in which no worker waits."""
    return _NeverWaits() if mode == "bsp" else consistency_of(mode)


def NoRestart(mode: str) -> Consistency:  # noqa: N802
    """Return a mode; instead of K-sync, one that does not cancel late gradients."""
    return _NeverRestarts(int(mode.partition(":")[2])) if mode.startswith("ksync") else consistency_of(mode)


def SlackOneMore(mode: str) -> Consistency:  # noqa: N802
    """Return a mode; instead of SSP, one with a slack that is one step larger."""
    return SSP(int(mode.partition(":")[2]) + 1) if mode.startswith("ssp") else consistency_of(mode)


def OneLess(mode: str) -> Consistency:  # noqa: N802
    """Return a mode; instead of BSP with four workers, one that averages the pushes of three."""
    return consistency_of("kasync:3") if mode == "bsp" else consistency_of(mode)


class InverseOfNext(Compensation):
    """A compensation that divides η by τ + 1 instead of τ."""

    def scale(self, staleness: int, live: int, learning_rate: float) -> float:
        """Return 1 / (τ + 1)."""
        return 1.0 / (staleness + 1)


# ------------------------------------------------------------------ time


def in_lockstep(service: str, count: int, what: str) -> list[Draw]:
    """Return constant times instead of random ones."""
    return draws_of("const:1", count, what)


def EqualRates(service: str, count: int, what: str) -> list[Draw]:  # noqa: N802
    """Return times of the same distribution for all workers."""
    return draws_of("exp:1", count, what)


class Doubled(Simulation):
    """A simulation in which every push arrives twice, with two sequence numbers."""

    def _push(self, worker: VirtualWorker) -> None:
        worker.seq += 1
        self._shard.push(Push(worker.number, 1, worker.seq, worker.base), np.zeros(self._shard.size, np.float32))
        super()._push(worker)


# ------------------------------------------------------------------ real workers


class Forgetful(SteppingWorker):
    """A worker that computes from the weights of the previous pull and reports the version of the latest one."""

    def step(self, gradient: np.ndarray, samples: int = 1) -> Pulled:
        """Push, and return the weights of the previous pull with the version of the latest one."""
        before = self.pulled
        pulled = super().step(gradient, samples)
        self.pulled = Pulled(before.flat, pulled.versions, pulled.replies)
        return self.pulled


class Repeating(SteppingWorker):
    """A worker that sends every third push again with a new sequence number, as if its reply had been lost."""

    def step(self, gradient: np.ndarray, samples: int = 1) -> Pulled:
        """Push once or twice, and return the weights of the last reply."""
        if len(self.replies) % 3 == 2:
            super().step(gradient, samples)
        return super().step(gradient, samples)


# ------------------------------------------------------------------ codecs


class LeakingFeedback(ErrorFeedback):
    """Error feedback that loses half of every residual."""

    def encode(self, shard: int, gradient: np.ndarray, coverage: Coverage | None = None) -> Payload:
        """Encode a gradient `float32[n]` and halve the residual."""
        payload = super().encode(shard, gradient, coverage)
        self.residuals[shard] *= np.float32(0.5)
        return payload


def truncating_qsgd(v: np.ndarray, levels: int, rng: np.random.Generator) -> np.ndarray:
    """Quantize `v`, `float32[n]`, like QSGD, but round every level down."""
    norm = np.float32(np.linalg.norm(v))
    return np.copysign(np.floor(np.abs(v) * (levels / norm)) * (norm / levels), v)


# ------------------------------------------------------------------ real servers


def one_more_slack(mode: str) -> str:
    """Return the value of `--mode`; for SSP, with a slack that is three steps larger."""
    return f"ssp:{int(mode.partition(':')[2]) + 3}" if mode.startswith("ssp") else mode


def without_barrier(mode: str) -> str:
    """Return the value of `--mode`; `async` instead of `bsp`."""
    return "async" if mode == "bsp" else mode
