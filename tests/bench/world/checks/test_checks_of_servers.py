"""Faulty servers, each of which one check of the simulated jobs detects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from downpour.bench.world.checks.integer_weights import (
    RATE,
    counted,
    differences,
    initial_weights,
    is_whole,
    model_file,
)
from downpour.bench.world.checks.watch import leaked_buffers
from downpour.bench.world.faults import parse_faults
from downpour.bench.world.job import run_job
from downpour.bench.world.job_shape import JobShape
from downpour.bench.world.seeded_job import SimulateJobSettings, shape_of
from downpour.ps.control_plane.checkpointer import Checkpointer
from downpour.ps.coordinator.membership import Membership
from downpour.ps.core.shard import Shard
from downpour.ps.data_plane import request_handler
from downpour.ps.data_plane.cut import ShardCut
from downpour.ps.data_plane.shard_runtime import ShardRuntime
from downpour.ps.data_plane.waiters import Waiters


def problems_of(seed: int, faults: str = "", **settings: Any) -> str:
    shape = shape_of(seed, SimulateJobSettings(faults="none", workers=3, **settings))
    return " ".join(run_job(seed, JobShape(**{**shape.__dict__, "faults": tuple(parse_faults(faults))})).problems)


def test_weights_tell_how_often_samples_were_applied_and_whose_initial_weights_they_are() -> None:
    start = initial_weights(1, 6)
    applied = np.array([0, 1, 2, 3, 6, 7])
    counts, origins = counted(differences(start + 5 - np.float32(RATE) * applied.astype(np.float32), start))
    assert counts.tolist() == applied.tolist() and origins.tolist() == [5.0] * 6


def test_a_model_is_whole_or_not() -> None:
    model = model_file(np.ones(4, np.float32), 10)
    assert is_whole(model)
    assert not any(is_whole(model[:size]) for size in range(len(model)))


def test_a_reply_that_waits_although_it_may_leave_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Waiters, "release", lambda self, shard: None)
    assert "waits, and may leave" in problems_of(3, mode="bsp", shards=1)


def test_pushes_that_are_held_without_a_cut_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ShardCut, "end", lambda self: None)
    found = "".join(problems_of(seed, mode="async", shards=1) for seed in range(4))
    assert "holds pushes for a cut that is not under way" in found


def test_a_cut_that_outlasts_a_shard_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Checkpointer, "abandon", lambda self, now: None)
    faults = [f"kill:ps-1@{0.8 + tenth / 50}" for tenth in range(20)]
    assert any("while a shard is missing" in problems_of(3, each, mode="async", shards=2) for each in faults)


def test_members_that_outlast_a_generation_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Membership, "clear", lambda self: None)
    assert "workers of an earlier one" in problems_of(3, "kill:ps-1@0.9", mode="async", shards=2)


def test_a_push_in_the_name_of_another_worker_is_refused_and_found_if_it_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lies = [f"lie:worker-1@{push}" for push in (3, 8)]
    assert [problems_of(seed, lie, mode="async") for lie in lies for seed in range(3)] == [""] * 6
    monkeypatch.setattr(request_handler, "_check_sender", lambda header, member: None)
    assert any("which claims" in problems_of(seed, lie, mode="async") for lie in lies for seed in range(3))


def test_a_push_of_another_generation_is_refused_and_found_if_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    lies = [f"lie:worker-1@{push}" for push in (4, 9)]
    assert [problems_of(3, lie, mode="async", shards=2) for lie in lies] == ["", ""]
    monkeypatch.setattr(Shard, "check_generation", lambda self, generation: None)
    assert all("which claims" in problems_of(3, lie, mode="async", shards=2) for lie in lies)


def test_a_buffer_that_nobody_holds_any_more_and_that_is_not_free_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = ShardRuntime.answer

    def leaky(self: ShardRuntime, shard: Shard, header: Any) -> Any:
        buffer, version = answer(self, shard, header)
        return shard._pool.hold(buffer), version

    assert problems_of(3, mode="async") == ""
    monkeypatch.setattr(ShardRuntime, "answer", leaky)
    assert "were held by nobody" in problems_of(3, mode="async")


def test_a_shard_without_weights_holds_no_buffer() -> None:
    assert leaked_buffers(ShardRuntime(0)) == 0
