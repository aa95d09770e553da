"""Parts with one fault each: every row of the conformance suite fails with one of them, which a test proves."""

from __future__ import annotations

from typing import Any

import numpy as np

from downpour.bench.conformance.real_cluster import SteppingWorker
from downpour.bench.simulation.service_times import Draw, draws_of
from downpour.bench.simulation.virtual_time import Simulation, VirtualWorker
from downpour.protos.frame import Buffer as Payload
from downpour.ps.core.buffers import Buffer
from downpour.ps.core.consistency import BSP, SSP, Consistency, KSync, consistency_of
from downpour.ps.core.push import Push, Result
from downpour.ps.core.shard import Shard
from downpour.ps.core.staleness import Compensation
from downpour.worker.exchange.client import Pulled
from downpour.worker.exchange.error_feedback import ErrorFeedback

# ------------------------------------------------------------------ shards


class OneStaler(Shard):
    """Says that every push is one version staler than it is."""

    def _conclude(self, push: Push, result: Result) -> Result:
        return super()._conclude(push, result._replace(staleness=result.staleness + 1))


class LateAnswer(Shard):
    """Answers a push with the weights from before it: the pull is not atomic with the push."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        """Has committed nothing before."""
        super().__init__(*args, **keywords)
        self._before: Buffer | None = None

    def _commit(self, spare: Buffer) -> None:
        if self._before is not None:
            self._pool.drop(self._before)
        self._before = self._pool.hold(self._committed)
        super()._commit(spare)

    def answer(self, worker: int) -> tuple[Buffer, int]:
        """The weights of the version before."""
        if self._before is None:
            return super().answer(worker)
        return self._pool.hold(self._before), self.version - 1


class LostPush(Shard):
    """Says that every seventh push was applied, and forgets it."""

    def _commit(self, spare: Buffer) -> None:
        if self.version % 7 == 6:
            spare.array[:] = self._committed.array
        super()._commit(spare)


class OneVersionOff(Shard):
    """Keeps, for corrections, the weights of the version after the one that was pulled."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        """Keeps the weights of all versions."""
        super().__init__(*args, **keywords)
        self._all = [self._committed.array.copy()]
        self._rule._base = lambda version: self._all[min(version + 1, len(self._all) - 1)]

    def _commit(self, spare: Buffer) -> None:
        super()._commit(spare)
        self._all.append(spare.array.copy())


class OneSided(Shard):
    """Elastic averaging that moves the shard towards the worker by more than the worker towards the shard."""

    def answer(self, worker: int) -> tuple[Buffer, int]:
        """The worker's own weights, halfway back."""
        buffer, version = super().answer(worker)
        if worker in self._replicas:
            buffer.array += (self._committed.array - buffer.array) * np.float32(0.5)
        return buffer, version


# ------------------------------------------------------------------ modes and policies


class _Free(BSP):
    def may_proceed(self, worker: int, senders: Any) -> bool:
        return True


class _Patient(KSync):
    restarts = False


def NoBarrier(mode: str) -> Consistency:  # noqa: N802 — mutants read like classes
    """BSP in which nobody waits."""
    return _Free() if mode == "bsp" else consistency_of(mode)


def NoRestart(mode: str) -> Consistency:  # noqa: N802
    """K-sync that lets the late ones go on."""
    return _Patient(int(mode.partition(":")[2])) if mode.startswith("ksync") else consistency_of(mode)


def SlackOneMore(mode: str) -> Consistency:  # noqa: N802
    """SSP with one step more of slack."""
    return SSP(int(mode.partition(":")[2]) + 1) if mode.startswith("ssp") else consistency_of(mode)


def OneLess(mode: str) -> Consistency:  # noqa: N802
    """BSP that averages only as many as it must not: all live workers but one."""
    return consistency_of("kasync:3") if mode == "bsp" else consistency_of(mode)


class InverseOfNext(Compensation):
    """η / (τ + 1)."""

    def scale(self, staleness: int, live: int, learning_rate: float) -> float:
        """One too strong."""
        return 1.0 / (staleness + 1)


# ------------------------------------------------------------------ time


def in_lockstep(service: str, count: int, what: str) -> list[Draw]:
    """Constant times in place of drawn ones."""
    return draws_of("const:1", count, what)


def EqualRates(service: str, count: int, what: str) -> list[Draw]:  # noqa: N802
    """The first worker's times for all."""
    return draws_of("exp:1", count, what)


class Doubled(Simulation):
    """Every push arrives twice under two numbers."""

    def _push(self, worker: VirtualWorker) -> None:
        worker.seq += 1
        self._shard.push(Push(worker.number, 1, worker.seq, worker.base), np.zeros(self._shard.size, np.float32))
        super()._push(worker)


# ------------------------------------------------------------------ real workers


class Forgetful(SteppingWorker):
    """Computes from the weights before those that it has pulled last, and says that they are newer."""

    def step(self, gradient: np.ndarray, samples: int = 1) -> Pulled:
        """The weights of the pull before, under the newest version."""
        before = self.pulled
        pulled = super().step(gradient, samples)
        self.pulled = Pulled(before.flat, pulled.versions, pulled.replies)
        return self.pulled


class Repeating(SteppingWorker):
    """Sends every third push again under a new number, as if its reply had been lost."""

    def step(self, gradient: np.ndarray, samples: int = 1) -> Pulled:
        """Once or twice."""
        if len(self.replies) % 3 == 2:
            super().step(gradient, samples)
        return super().step(gradient, samples)


# ------------------------------------------------------------------ codecs


class LeakingFeedback(ErrorFeedback):
    """Keeps half of what was left out."""

    def encode(self, shard: int, gradient: np.ndarray) -> Payload:
        """As the real one, with a leak."""
        payload = super().encode(shard, gradient)
        self.residuals[shard] *= np.float32(0.5)
        return payload


def truncating_qsgd(v: np.ndarray, levels: int, rng: np.random.Generator) -> np.ndarray:
    """Rounds every level down."""
    norm = np.float32(np.linalg.norm(v))
    return np.copysign(np.floor(np.abs(v) * (levels / norm)) * (norm / levels), v)


# ------------------------------------------------------------------ real servers


def one_more_slack(mode: str) -> str:
    """SSP with three steps more of slack."""
    return f"ssp:{int(mode.partition(':')[2]) + 3}" if mode.startswith("ssp") else mode


def without_barrier(mode: str) -> str:
    """Async in place of BSP."""
    return "async" if mode == "bsp" else mode
