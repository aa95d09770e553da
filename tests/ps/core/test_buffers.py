"""Commit by swap: a buffer that is held never changes, and a buffer without holders is reused."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from downpour.ps.core.buffers import Buffer, Pool
from downpour.ps.core.consistency import consistency_of
from downpour.ps.core.optimizer import Optimizer
from downpour.ps.core.push import Push
from downpour.ps.core.rules.hyperparameters import Hyperparameters
from downpour.ps.core.rules.update_rules import OPTIMIZERS
from downpour.ps.core.shard import Shard


@given(st.lists(st.sampled_from(["take", "hold", "drop"]), max_size=60), st.randoms())
def test_no_two_holders_share_memory_that_one_may_write(steps: list[str], choose: random.Random) -> None:
    pool = Pool(4)
    holders: list[Buffer] = []
    most = 0
    for step in steps:
        if step == "take":
            buffer = pool.take()
            assert not any(buffer is held for held in holders)
            holders.append(buffer)
        elif holders and step == "hold":
            holders.append(pool.hold(choose.choice(holders)))
        elif holders:
            pool.drop(holders.pop(choose.randrange(len(holders))))
        most = max(most, len({id(buffer) for buffer in holders}))
        assert pool.allocated == most


def test_a_pulled_buffer_never_changes_under_any_optimizer() -> None:
    for name in OPTIMIZERS:
        rng = np.random.default_rng(0)
        shard = Shard(
            rng.standard_normal(50).astype(np.float32), Optimizer(name, Hyperparameters(), 50), consistency_of("async")
        )
        shard.join(0, 1)
        held = []
        for seq in range(1, 9):
            buffer, version = shard.pull()
            held.append((buffer, buffer.array.copy()))
            shard.push(Push(0, 1, seq, version), rng.standard_normal(50).astype(np.float32))
        for buffer, copy in held:
            np.testing.assert_array_equal(buffer.array, copy, err_msg=name)
        assert len({id(buffer) for buffer, _ in held}) == len(held)


def test_without_readers_two_buffers_are_enough_for_ever() -> None:
    shard = Shard(
        np.zeros(8, np.float32), Optimizer("sgd", Hyperparameters(learning_rate=1.0), 8), consistency_of("async")
    )
    shard.join(0, 1)
    for seq in range(1, 200):
        buffer, version = shard.pull()
        shard.release(buffer)
        shard.push(Push(0, 1, seq, version), np.ones(8, np.float32))
    assert shard._pool.allocated == 2


def test_a_buffer_returns_to_its_own_pool() -> None:
    def made(size: int) -> Shard:
        return Shard(np.zeros(size, np.float32), Optimizer("sgd", Hyperparameters(), size), consistency_of("async"))

    old, new = made(4), made(6)
    held, _ = old.pull()
    new.release(held)  # a script's next `fit` has put another shard in the place of the one that was pulled from
    for seq in (1, 2, 3):
        new.join(0, seq)
        new.push(Push(worker=0, incarnation=seq, seq=1, base_version=seq - 1), np.ones(6, np.float32))
        assert len(new.pull()[0].array) == 6
