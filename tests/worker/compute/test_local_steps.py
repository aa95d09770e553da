"""Local steps: what a push sums up, when weights are pulled, and what staleness that makes (C13)."""

from __future__ import annotations

import math
from collections.abc import Generator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from downpour.protos import parameter_server_pb2 as pb
from downpour.ps.config import JobSettings
from downpour.worker.catalog.datasets import Dataset
from downpour.worker.compute.gradient import Gradient, GradientFunction, read_weights
from downpour.worker.compute.local_steps import LocalSteps
from downpour.worker.exchange.client import Pulled
from downpour.worker.exchange.push_info import PushInfo
from downpour.worker.plan.push_plan import PushPlan
from downpour.worker.train.lease_steps import LeaseSteps, PushResult
from tests.support.cluster import Member, running, vector_layout

BATCH, SAMPLES, RATE = 4, 64, 0.25


def dataset() -> Dataset:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((SAMPLES, 5)).astype(np.float32)
    y = rng.integers(0, 3, SAMPLES).astype(np.int32)
    return Dataset("random", x, y, x[:4], y[:4], "c" * 64)


def model(*layers: Any) -> keras.Model:
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.layers.Input((5,)), *layers, keras.layers.Dense(3, activation="softmax")])


def one_by_one(
    function: GradientFunction, flat: np.ndarray, indices: np.ndarray, seed: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, float, int]:
    """The definition: w ← w − η g, batch after batch; Σ g and the state's change, weights, mean loss, correct."""
    n = function.model.layout.trained
    weights, total, losses, correct = flat.copy(), np.zeros_like(flat), [], 0
    for step, start in enumerate(range(0, len(indices), BATCH)):
        gradient = function(weights, indices[start : start + BATCH], seed, step)
        total += gradient.flat
        weights[:n] -= np.float32(RATE) * gradient.flat[:n]
        weights[n:] += gradient.flat[n:]
        losses.append(gradient.loss)
        correct += gradient.correct
    return total, weights, float(np.mean(losses)), correct


@pytest.mark.parametrize("xla", ["off", "on"])
@pytest.mark.parametrize("layers", [(), (keras.layers.BatchNormalization,), (lambda: keras.layers.Dropout(0.5),)])
def test_a_function_of_many_steps_equals_the_single_steps(xla: str, layers: tuple[Any, ...]) -> None:
    function = GradientFunction(model(*[layer() for layer in layers]), dataset(), BATCH)
    flat = read_weights(function.model.model)
    local = LocalSteps(function, RATE, most=5)
    local.warm_up(flat, xla)
    function.warm_up(flat, xla)  # the two draw different random numbers
    assert local.xla == function.xla == (xla == "on")
    order = np.random.default_rng(3).permutation(SAMPLES).astype(np.int32)
    for steps in (1, 3, 5):
        indices, seed = order[: steps * BATCH], (0, 1, steps)
        ours = local(flat, indices, seed, 0)
        total, _, loss, correct = one_by_one(function, flat, indices, seed)
        np.testing.assert_allclose(ours.flat, total, rtol=1e-4, atol=1e-6)
        assert ours.loss == pytest.approx(loss, rel=1e-5)
        assert ours.correct == correct
        trained = total[: function.model.layout.trained]
        assert ours.norm == pytest.approx(float(np.linalg.norm(trained)), rel=1e-4)


class Server:
    """A shard of plain gradient descent that notes what it is sent; stands for a `Client`.

    Weights that it has given are void with the next request, as those in shared memory may be.
    """

    def __init__(self, weights: np.ndarray, trained: int, adds: bool = False) -> None:
        self.weights, self.trained, self.adds = weights.copy(), trained, adds
        self.version = self.pulls = 0
        self.pushes: list[tuple[np.ndarray, PushInfo, bool]] = []
        self._reply: Pulled | None = None
        self._given = np.empty(0, np.float32)

    def pull(self, pin: int = 0) -> Pulled:
        self.pulls += 1
        return Pulled(self._give(), (self.version,), (pb.Reply(),))

    def _give(self) -> np.ndarray:
        self._given.fill(np.nan)
        self._given = self.weights.copy()
        return self._given

    def push(self, gradient: np.ndarray, info: PushInfo, pull: bool = True) -> None:
        self.pushes.append((gradient.copy(), info, pull))
        if info.finite:
            n = self.trained
            self.weights[:n] += gradient[:n] if self.adds else np.float32(-RATE) * gradient[:n]
            self.weights[n:] += gradient[n:]
            self.version += 1
        weights = self._give()
        if not pull:
            weights = np.empty(0, np.float32)
        self._reply = Pulled(weights, (self.version,), (pb.Reply(),))

    def pulled(self) -> Pulled:
        assert self._reply is not None
        reply, self._reply = self._reply, None
        return reply


class Quadratic:
    """g = w − x_i, by hand: batches of numbers instead of TensorFlow."""

    most = 3

    def __init__(self, n: int) -> None:
        self.targets = np.random.default_rng(5).standard_normal((SAMPLES, n)).astype(np.float32)

    def __call__(self, flat: np.ndarray, indices: np.ndarray, seed: Any, step: int) -> Gradient:
        weights, total = flat.copy(), np.zeros_like(flat)
        for start in range(0, len(indices), BATCH):
            gradient = weights - self.targets[indices[start : start + BATCH]].mean(0)
            weights -= np.float32(RATE) * gradient
            total += gradient
        return Gradient(total, float(np.linalg.norm(total)), 1.0, 0)


def steps_of(server: Any, compute: Quadratic, plan: PushPlan, n: int, many: bool = True) -> LeaseSteps:
    job = pb.JobDescription(batch_size=BATCH, learning_rate=RATE, seed=0)
    return LeaseSteps(server, compute, compute if many else None, plan, job, 1, n, SAMPLES)


def lease(start: int, stop: int) -> pb.Task:
    return pb.Task(kind=pb.TRAIN, lease=0, epoch=0, start=start, stop=stop)


@pytest.mark.parametrize("pushes_per_fetch", [1, 2, 3, 100])
@pytest.mark.parametrize("push_every", [1, 2, 3, 4, 7, 100])
def test_a_lone_worker_trains_as_without_a_server(push_every: int, pushes_per_fetch: int) -> None:
    """Alone, the weights that it pulls are those that it has, as long as it has pushed all it has computed."""
    n, stop = 6, SAMPLES - 2  # the last batch is short
    compute, server = Quadratic(n), Server(np.ones(n, np.float32), n)
    list(steps_of(server, compute, PushPlan(push_every, push_every * pushes_per_fetch), n).train(lease(0, stop)))
    order, expected = steps_of(server, compute, PushPlan(), n)._order(0), np.ones(n, np.float32)
    for start in range(0, stop, BATCH):
        batch = order[start : min(start + BATCH, stop)]
        expected -= np.float32(RATE) * (expected - compute.targets[batch].mean(0))
    np.testing.assert_allclose(server.weights, expected, rtol=1e-5)


@pytest.mark.parametrize(("push_every", "fetch_every"), [(1, 1), (3, 3), (5, 5), (20, 20), (1, 4), (4, 2), (2, 6)])
def test_pushes_cover_a_lease_without_gap_or_overlap(push_every: int, fetch_every: int) -> None:
    n, start, stop = 3, 8, SAMPLES - 1
    server = Server(np.ones(n, np.float32), n)
    done = list(steps_of(server, Quadratic(n), PushPlan(push_every, fetch_every), n).train(lease(start, stop)))
    samples = [pushed for _, pushed, _ in server.pushes]
    assert [one.start for one in samples] == [start, *(one.stop for one in samples[:-1])]
    assert samples[-1].stop == stop
    assert all(one.samples == one.stop - one.start for one in samples)
    assert [one.steps for one in samples] == [-(-one.samples // BATCH) for one in samples]
    assert all(one.steps <= push_every for one in samples)
    assert len(done) == len(samples) == math.ceil(math.ceil((stop - start) / BATCH) / push_every)


def test_weights_are_pulled_every_fetch_interval_with_a_push_where_one_is_due() -> None:
    server = Server(np.ones(3, np.float32), 3)
    one = steps_of(server, Quadratic(3), PushPlan(push_every=1, fetch_every=3), 3, many=False)
    list(one.train(lease(0, 7 * BATCH)))
    list(one.train(lease(7 * BATCH, 9 * BATCH)))
    assert [pull for _, _, pull in server.pushes] == [False, False, True] * 3
    assert server.pulls == 1  # the first; the interval runs on from lease to lease


def test_a_sum_with_nan_is_named_and_weights_are_pulled_again() -> None:
    class Broken(Quadratic):
        def __call__(self, flat: np.ndarray, indices: np.ndarray, seed: Any, step: int) -> Gradient:
            assert np.isfinite(flat).all()
            return Gradient(np.full_like(flat, np.nan), float("nan"), float("nan"), 0)

    server = Server(np.ones(3, np.float32), 3)
    done = list(steps_of(server, Broken(3), PushPlan(2, 8), 3).train(lease(0, 4 * BATCH)))
    assert [pushed.finite for pushed in done] == [False, False]
    assert all(pull for _, _, pull in server.pushes)
    assert [pushed.steps for _, pushed, _ in server.pushes] == [2, 2]


def test_local_sgd_pushes_the_difference_and_elastic_averaging_the_weights() -> None:
    n, initial = 3, np.ones(3, np.float32)
    compute = Quadratic(n)
    total = compute(initial, steps_of(Server(initial, n), compute, PushPlan(), n)._order(0)[: 5 * BATCH], (), 0).flat
    moved = np.float32(-RATE) * total
    before_the_last = initial - np.float32(RATE) * compute(
        initial, steps_of(Server(initial, n), compute, PushPlan(), n)._order(0)[: 4 * BATCH], (), 0
    ).flat  # fmt: skip
    for payload, expected in (("difference", moved), ("replica", before_the_last)):
        server = Server(initial, n, adds=True)
        plan = PushPlan(5, 5, payload)  # type: ignore[arg-type]
        list(steps_of(server, compute, plan, n).train(lease(0, 5 * BATCH)))
        assert len(server.pushes) == 1
        np.testing.assert_allclose(server.pushes[0][0], expected, rtol=1e-5)


def test_an_elastic_worker_continues_from_the_reply_across_leases() -> None:
    """Algorithm 1: the gradient is taken at what is exchanged, and its step is made from the answer."""
    n, computed_from, gradients = 2, [], []

    class Watched(Quadratic):
        def __call__(self, flat: np.ndarray, indices: np.ndarray, seed: Any, step: int) -> Gradient:
            computed_from.append(flat.copy())
            gradients.append(super().__call__(flat, indices, seed, step))
            return gradients[-1]

    server = Server(np.ones(n, np.float32), n, adds=True)
    one = steps_of(server, Watched(n), PushPlan(2, 2, "replica"), n)
    answers = []
    for start in (0, 2 * BATCH, 4 * BATCH):
        list(one.train(lease(start, start + 2 * BATCH)))
        one.forget()
        answers.append(server.weights.copy())
    assert server.pulls == 1 and len(computed_from) == 6
    for exchange in range(3):
        np.testing.assert_array_equal(server.pushes[exchange][0], computed_from[2 * exchange + 1])
    for exchange in range(2):
        expected = answers[exchange] - np.float32(RATE) * gradients[2 * exchange + 1].flat
        np.testing.assert_allclose(computed_from[2 * exchange + 2], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("mode", "push_every", "fetch_every", "expected"),
    [
        ("async", 1, 1, PushPlan()),
        ("async", 20, 20, PushPlan(20, 20)),
        ("ssp:2", 1, 5, PushPlan(1, 5)),
        ("localsgd:4", 1, 1, PushPlan(4, 4, "difference")),
        ("easgd:0.5,8", 1, 1, PushPlan(8, 8, "replica")),
        ("bsp", 1, 1, PushPlan(fresh=True)),
    ],
)
def test_the_plan_of_a_job(mode: str, push_every: int, fetch_every: int, expected: PushPlan) -> None:
    job = pb.JobDescription(mode=mode, push_every=push_every, fetch_every=fetch_every)
    assert PushPlan.of(job) == expected


@pytest.mark.parametrize("mode", ["localsgd", "easgd:0.5", "easgd:0.5,x", "localsgd:0"])
def test_a_mode_without_its_steps_is_refused(mode: str) -> None:
    with pytest.raises(ValueError, match="the job's mode must be written (localsgd:K|easgd:RHO,K)"):
        PushPlan.of(pb.JobDescription(mode=mode))


@pytest.mark.parametrize(
    ("job", "setting"),
    [
        (pb.JobDescription(mode="localsgd:4"), "--mode localsgd:4"),
        (pb.JobDescription(mode="easgd:0.5,8"), "--mode easgd:0.5,8"),
        (pb.JobDescription(mode="async", push_every=1, overlap=True), "--overlap"),
        (pb.JobDescription(mode="ssp:2", push_every=2, fetch_every=4), "--push-every 2 --fetch-every 4"),
    ],
)
def test_a_plan_names_the_setting_that_the_user_chose(job: pb.JobDescription, setting: str) -> None:
    assert PushPlan.of(job).setting == setting


@pytest.mark.parametrize("flags", [{"push_every": 2}, {"fetch_every": 2}])
@pytest.mark.parametrize("mode", ["localsgd:4", "easgd:0.5,4"])
def test_intervals_are_refused_where_the_mode_has_its_own(mode: str, flags: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="prescribes the number of local steps"):
        JobSettings(mode=mode, **flags)  # type: ignore[arg-type]


def turns(members: list[Member], fetch_every: int, n: int) -> list[Generator[PushResult]]:
    """The steps of each member, whose gradients are all ones: the weights that it pulls tell their version."""

    def ones(flat: np.ndarray, indices: np.ndarray, seed: Any, step: int) -> Gradient:
        return Gradient(np.ones(n, np.float32), 1.0, 0.0, 0)

    job = pb.JobDescription(batch_size=1, learning_rate=RATE, seed=0)
    plan = PushPlan(1, fetch_every)
    return [
        LeaseSteps(member.client, ones, None, plan, job, member.worker, n, 1000).train(lease(0, 1000))
        for member in members
    ]


@pytest.mark.parametrize(("workers", "fetch_every"), [(4, 5), (2, 1), (3, 4)])
def test_staleness_of_turns_with_rare_pulls_is_exact(tmp_path: Path, workers: int, fetch_every: int) -> None:
    """C13: mean τ = (P − 1) + P(k − 1)/2, over real gRPC."""
    n = 4
    with running(tmp_path, workers=workers, learning_rate=RATE) as cluster:
        members = cluster.train(vector_layout(n), workers)
        runs = turns(members, fetch_every, n)
        for one in runs * fetch_every:  # until everybody has pulled in its turn
            next(one)
        taken = [next(one).replies[0].staleness for _ in range(2 * fetch_every) for one in runs]
        updates = 3 * fetch_every * workers
        assert np.mean(taken) == (workers - 1) + workers * (fetch_every - 1) / 2
        assert members[0].client.pull().flat.tolist() == [-RATE * updates] * n
