"""Random schedules on `Shard` against a reference of forty lines; a failure prints the schedule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from downpour.protos.errors import FutureVersion, UnknownWorker
from downpour.ps.core.buffers import Buffer
from downpour.ps.core.consistency import consistency_of
from downpour.ps.core.optimizer import Optimizer
from downpour.ps.core.push import Outcome, Push, Result
from downpour.ps.core.rules.hyperparameters import Hyperparameters
from downpour.ps.core.shard import Shard

RATE, TRAINED, STATE = 0.125, 3, 2
WORKERS = st.integers(0, 3)
# Small integers times a power of two: float32 sums of them are exact in any order.
GRADIENTS = st.lists(st.integers(-8, 8), min_size=TRAINED + STATE, max_size=TRAINED + STATE)
FLAWS = st.sampled_from(["", "", "", "nan", "norm", "declared"])


class Reference:
    """What an asynchronous shard does, with lists of all versions and no cleverness."""

    def __init__(self, initial: np.ndarray) -> None:
        self.history = [initial.copy()]
        self.members: dict[int, int] = {}
        self.results: dict[tuple[int, int, int], Result] = {}
        self.pins: dict[int, int] = {}
        self.outcomes: list[tuple[Push, Result]] = []

    @property
    def version(self) -> int:
        return len(self.history) - 1

    def push(self, push: Push, gradient: np.ndarray) -> Result:
        if self.members.get(push.worker) != push.incarnation:
            raise UnknownWorker
        name = (push.worker, push.incarnation, push.seq)
        if name in self.results:
            return self.results[name]
        if push.base_version > self.version:
            raise FutureVersion
        staleness = self.version - push.base_version
        if push.nonfinite or not np.isfinite(gradient).all() or not np.isfinite(push.norm):
            result = Result(Outcome.DROPPED, self.version, staleness, reason="nonfinite")
        else:
            new = self.history[-1].copy()
            new[:TRAINED] -= np.float32(RATE) * gradient[:TRAINED]
            new[TRAINED:] += gradient[TRAINED:]
            self.history.append(new)
            result = Result(Outcome.APPLIED, self.version, staleness, RATE)
        self.results[name] = result
        self.outcomes.append((push, result))
        return result


class Schedules(RuleBasedStateMachine):
    @initialize(initial=GRADIENTS)
    def start(self, initial: list[int]) -> None:
        vector = np.array(initial, np.float32)
        self.reference = Reference(vector)
        self.outcomes: list[tuple[Push, Result]] = []
        self.shard = Shard(
            vector,
            Optimizer("sgd", Hyperparameters(learning_rate=RATE), TRAINED),
            consistency_of("async"),
            on_outcome=lambda push, result: self.outcomes.append((push, result)),
        )
        self.incarnations: dict[int, int] = {}
        self.seqs: dict[int, int] = {}
        self.sent: list[tuple[Push, np.ndarray]] = []
        self.held: list[tuple[Buffer, int]] = []
        self.most_held = 0

    @rule(worker=WORKERS)
    def join(self, worker: int) -> None:
        self.incarnations[worker] = self.incarnations.get(worker, 0) + 1
        self.seqs[worker] = 0
        self.shard.join(worker, self.incarnations[worker])
        self.reference.members[worker] = self.incarnations[worker]

    @rule(worker=WORKERS)
    def leave(self, worker: int) -> None:
        self.shard.leave(worker)
        self.reference.members.pop(worker, None)

    @rule(worker=WORKERS, gradient=GRADIENTS, back=st.integers(-1, 5), flaw=FLAWS)
    def push(self, worker: int, gradient: list[int], back: int, flaw: str) -> None:
        seq = self.seqs.get(worker, 0) + 1
        base = max(0, self.reference.version - back)
        vector = np.array(gradient, np.float32)
        if flaw == "nan":
            vector[0] = np.nan
        push = Push(
            worker, self.incarnations.get(worker, 1), seq, base,
            norm=float("inf") if flaw == "norm" else 1.0, nonfinite=flaw == "declared",
        )  # fmt: skip
        if self._same(push, vector):
            self.seqs[worker] = seq
            self.sent.append((push, vector))

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def push_again(self, data: Any) -> None:
        self._same(*data.draw(st.sampled_from(self.sent[-32:])))

    @rule()
    def hold(self) -> None:
        self.held.append(self.shard.pull())

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: Any) -> None:
        index = data.draw(st.integers(0, len(self.held) - 1))
        self.shard.release(self.held.pop(index)[0])

    @rule(number=st.integers(1, 2))
    def pin(self, number: int) -> None:
        self.shard.pin(number)
        self.reference.pins[number] = self.reference.version

    @rule(number=st.integers(1, 2))
    def unpin(self, number: int) -> None:
        self.shard.unpin(number)
        self.reference.pins.pop(number, None)

    def _same(self, push: Push, gradient: np.ndarray) -> bool:
        """Pushes to both; whether it counted."""
        try:
            expected = self.reference.push(push, gradient.copy())
        except (UnknownWorker, FutureVersion) as error:
            with pytest.raises(type(error)):
                self.shard.push(push, gradient)
            return False
        assert self.shard.push(push, gradient) == expected
        return True

    @invariant()
    def committed_is_the_reference(self) -> None:
        buffer, version = self.shard.pull()
        assert version == self.reference.version
        np.testing.assert_array_equal(buffer.array, self.reference.history[-1])
        self.shard.release(buffer)

    @invariant()
    def readers_never_see_a_change(self) -> None:
        for buffer, version in self.held:
            np.testing.assert_array_equal(buffer.array, self.reference.history[version])

    @invariant()
    def pins_keep_what_they_pinned(self) -> None:
        for number, version in self.reference.pins.items():
            buffer, pinned = self.shard.pull(number)
            assert pinned == version
            np.testing.assert_array_equal(buffer.array, self.reference.history[version])
            self.shard.release(buffer)

    @invariant()
    def every_outcome_is_told_once_and_in_order(self) -> None:
        assert self.outcomes == self.reference.outcomes

    @invariant()
    def memory_is_bounded_by_readers(self) -> None:
        held = {id(buffer) for buffer, _ in self.held}
        self.most_held = max(self.most_held, len(held) + len(self.reference.pins))
        assert self.shard._pool.allocated <= self.most_held + 2


Schedules.TestCase.settings = settings(max_examples=80, stateful_step_count=40)
TestSchedules = Schedules.TestCase
