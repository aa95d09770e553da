"""An update that fails leaks no buffer and leaves no push without an outcome; kept versions follow the overlap."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.layout import TRAINED, Layout
from downpour.ps.config import ServerSettings
from downpour.ps.core.buffers import Pool
from downpour.ps.core.consistency import MODES, consistency_of
from downpour.ps.core.optimizer import Optimizer
from downpour.ps.core.push import Outcome, Push, Result
from downpour.ps.core.shard import Shard
from downpour.ps.core.staleness import compensation_of
from downpour.ps.data_plane.shard_builder import ShardBuilder

N = 6


class Fails(Exception):
    """What an update raises."""


def failing(*args: Any, **kwargs: Any) -> Any:
    raise Fails


@pytest.mark.parametrize("mode", [row.example for row in MODES.values()])
def test_a_failed_update_gives_its_buffer_back_and_every_push_an_outcome(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes: list[tuple[Push, Result]] = []
    pool = Pool(N)
    optimizer = Optimizer("sgd", {"learning_rate": 0.5}, N)
    policy = consistency_of(mode)
    shard = Shard(np.zeros(N, np.float32), optimizer, policy, on_outcome=lambda *o: outcomes.append(o), pool=pool)
    for worker in range(2):
        shard.join(worker, 1)
    for name in ("one", "several", "elastic"):
        monkeypatch.setattr(shard._rule, name, failing)
    held = pool.allocated - len(pool._spare)
    pushed = []
    for seq in range(1, 6):
        for worker in range(2):
            push = Push(worker, 1, seq, 0)
            pushed.append(push)
            with suppress(Fails):
                shard.push(push, np.ones(N, np.float32))
    with suppress(Fails):
        shard.flush()
    assert pool.allocated - len(pool._spare) == held
    assert shard.version == 0 and shard.pending == []
    assert {(push.worker, push.seq) for push, _ in outcomes} == {(push.worker, push.seq) for push in pushed}
    assert len(outcomes) == len(pushed)
    assert all(result.outcome == Outcome.DROPPED for _, result in outcomes)
    for push in pushed:
        recorded = shard.recorded(push.worker, push.incarnation, push.seq)
        assert recorded is not None and recorded.outcome == Outcome.DROPPED


@pytest.mark.parametrize(
    "name", ["delay_adaptive", "delay_adaptive:2", "inverse", "none", "dc_asgd", "dc_asgd_adaptive"]
)
def test_a_learning_rate_of_zero_is_accepted(name: str) -> None:
    policy = compensation_of(name)
    for staleness in range(9):
        assert 0.0 <= policy.scale(staleness, 2, 0.0) <= 1.0


def build(**settings: Any) -> Shard:
    """A shard as a server process builds it."""
    builder = ShardBuilder(0)
    builder.set_settings(ServerSettings(**settings).model_dump_json(), built=False)
    builder.set_layout(Layout.of([("w", (N,), TRAINED)]).to_proto())
    shard: Callable[..., Shard] = builder.build
    return shard(lambda push, result: None)


@pytest.mark.parametrize("overlap", [False, True])
def test_a_worker_that_overlaps_has_its_gradients_corrected(overlap: bool) -> None:
    """With overlap a gradient comes from the pull before the last one, whose weights must still be kept."""
    shard = build(staleness_policy="dc_asgd", overlap=overlap, learning_rate=0.1)
    for worker in range(2):
        shard.join(worker, 1)
        shard.release(shard.pull(worker=worker)[0])
    bases = {0: [0], 1: [0]}
    for seq in range(1, 30):
        for worker in range(2):
            base = bases[worker].pop(0)
            shard.push(Push(worker, 1, seq, base), np.full(N, 0.01, np.float32))
            buffer, version = shard.answer(worker)
            shard.release(buffer)
            bases[worker].append(version)
            if overlap and seq == 1:
                bases[worker].insert(0, 0)
    assert shard.uncorrected == 0


@pytest.mark.parametrize("staleness", ["dc_asgd", "none"])
def test_a_change_of_the_mode_keeps_the_weights_that_gradients_on_their_way_come_from(staleness: str) -> None:
    shard = build(staleness_policy="dc_asgd", learning_rate=0.1)
    for worker in range(2):
        shard.join(worker, 1)
        shard.release(shard.pull(worker=worker)[0])
    shard.push(Push(0, 1, 1, 0), np.full(N, 0.01, np.float32))
    shard.reconfigure(consistency_of("ssp:2"), compensation_of(staleness))
    assert shard._versions.kept == (1 if staleness == "dc_asgd" else 0)
    shard.push(Push(1, 1, 1, 0), np.full(N, 0.01, np.float32))  # one version behind
    assert shard.uncorrected == 0


def test_the_count_of_uncorrected_gradients_is_part_of_a_shards_counters() -> None:
    assert "uncorrected" in pb.ShardCounters.DESCRIPTOR.fields_by_name
