"""A push that covers some tensors updates these as Keras does, and leaves the others as they are, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from downpour.protos.coverage import Coverage, bitmap_of, covered_tensors
from downpour.protos.errors import InvalidRequest
from downpour.protos.layout import TRAINED, Layout, Tensor, UpdateFlags
from downpour.ps.core.consistency import MODES, consistency_of
from downpour.ps.core.push import Outcome, Push
from downpour.ps.core.rules.update_rules import OPTIMIZERS
from downpour.ps.core.shard import Shard
from downpour.ps.core.staleness import POLICIES, compensation_of
from downpour.ps.core.tensor_optimizer import REMEMBERED_COVERAGES, OptimizerSpec, TensorOptimizer, WeightAverage

SIZES = (3, 1, 7, 5, 16)
N = sum(SIZES)
STATE = 2
STEPS = 8
GRADIENT_MODES = [row.example for row in MODES.values() if consistency_of(row.example).payload == "gradient"]


def layout_of(flags: Sequence[UpdateFlags] = (UpdateFlags(),) * len(SIZES)) -> Layout:
    named = [Tensor(f"w{i}", (size,), TRAINED, flag) for i, (size, flag) in enumerate(zip(SIZES, flags, strict=True))]
    return Layout((*named, Tensor("mean", (STATE,), 1)))


def shards_of(
    layout: Layout, optimizers: Sequence[OptimizerSpec], mode: str = "async", policy: str = "none", count: int = 1
) -> list[Shard]:
    shards = []
    for part in layout.cut(count):
        rule = TensorOptimizer(optimizers, layout, part)
        shard = Shard(initial()[part.start : part.stop].copy(), rule, consistency_of(mode), compensation_of(policy))
        if part.state:
            weights = np.concatenate([initial()[part.start : part.stop], np.zeros(STATE, np.float32)])
            shard = Shard(weights, rule, consistency_of(mode), compensation_of(policy))
        shards.append(shard)
    return shards


def initial() -> np.ndarray:
    return np.random.default_rng(5).standard_normal(N).astype(np.float32)


def edges() -> list[int]:
    return [0, *np.cumsum(SIZES).tolist()]


def places(chosen: Sequence[int]) -> np.ndarray:
    """A mask of the elements of some tensors."""
    mask = np.zeros(N, bool)
    for index in chosen:
        mask[edges()[index] : edges()[index + 1]] = True
    return mask


def push_to(shards: Sequence[Shard], layout: Layout, push: Push, gradient: np.ndarray) -> list[Outcome]:
    """Push the covered part of a gradient `float32[n]` to all shards, and ones to the state."""
    outcomes = []
    for shard, part in zip(shards, layout.cut(len(shards)), strict=True):
        coverage = Coverage.of(push.tensors, layout, part)
        payload = coverage.compress(gradient[part.start : part.stop])
        assert len(payload) == coverage.size
        if part.state:
            payload = np.concatenate([payload, np.ones(STATE, np.float32)])
        outcomes.append(shard.push(push, payload, owned=False).outcome)
    return outcomes


def weights_of(shards: Sequence[Shard], layout: Layout) -> np.ndarray:
    parts = []
    for shard, part in zip(shards, layout.cut(len(shards)), strict=True):
        buffer, _ = shard.pull()
        parts.append(buffer.array[: part.trained].copy())
        shard.release(buffer)
    return np.concatenate(parts)


def slots_of(shards: Sequence[Shard]) -> dict[str, np.ndarray]:
    states = [shard.optimizer_state() for shard in shards]
    return {name: np.concatenate([np.atleast_1d(state[name]) for state in states]) for name in states[0]}


@pytest.fixture(scope="module")
def keras() -> Any:
    import keras

    return keras


def keras_of(keras: Any, name: str, hyper: dict[str, float]) -> Any:
    rule = OPTIMIZERS[name]
    options = {option: is_set for option, is_set in rule.keras_options.items() if option != "momentum"}
    momentum = {"momentum": 0.9} if rule.keras_options.get("momentum") else {}
    return getattr(keras.optimizers, rule.keras)(**{**momentum, **hyper}, **options)


def random_sets(seed: int, steps: int = STEPS) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    sets = [[index for index in range(len(SIZES)) if rng.random() < 0.5] or [0] for _ in range(steps)]
    return [*sets, list(range(len(SIZES)))]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("decay", [0.0, 0.2])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_covered_tensors_are_updated_as_by_keras_and_the_others_stay(
    keras: Any, name: str, decay: float, count: int
) -> None:
    """Some tensors are also excluded from the weight decay."""
    hyper = {"learning_rate": 0.05, "weight_decay": decay}
    excluded = {1, 3} if decay else set()
    layout = layout_of([UpdateFlags(decays=index not in excluded) for index in range(len(SIZES))])
    shards = shards_of(layout, [OptimizerSpec(name, dict(hyper))], count=count)
    for shard in shards:
        shard.join(0, 1)
    theirs = keras_of(keras, name, hyper)
    variables = [keras.Variable(part, name=f"w{i}") for i, part in enumerate(np.split(initial(), edges()[1:-1]))]
    if excluded:
        theirs.exclude_from_weight_decay(var_list=[variables[index] for index in excluded])
    theirs.build(variables)
    rng, largest = np.random.default_rng(7), np.abs(initial())
    for seq, chosen in enumerate(random_sets(3), start=1):
        gradient = rng.standard_normal(N).astype(np.float32)
        before, slots_before = weights_of(shards, layout), slots_of(shards)
        pieces = np.split(gradient, edges()[1:-1])
        theirs.apply([keras.ops.convert_to_tensor(pieces[i]) for i in chosen], [variables[i] for i in chosen])
        push = Push(0, 1, seq, seq - 1, tensors=bitmap_of(chosen, len(SIZES)))
        assert set(push_to(shards, layout, push, gradient)) == {Outcome.APPLIED}
        after, slots, covered = weights_of(shards, layout), slots_of(shards), places(chosen)
        np.testing.assert_array_equal(after[~covered].view(np.uint32), before[~covered].view(np.uint32))
        for slot in slots.keys() - {"step"}:
            np.testing.assert_array_equal(slots[slot][~covered], slots_before[slot][~covered])
        expected = np.concatenate([variable.numpy() for variable in variables])
        largest = np.maximum(largest, np.abs(expected))
        assert (np.abs(after - expected) <= 4e-6 * largest).all(), np.abs(after - expected).max()
        for variable, part in zip(variables, np.split(after, edges()[1:-1]), strict=True):
            variable.assign(part)
        assert set(slots["step"].tolist()) == {seq} == {int(theirs.iterations)}


def test_each_optimizer_updates_its_own_tensors_at_its_own_step(keras: Any) -> None:
    owners = [0, 1, 0, 2, 1]
    layout = layout_of([UpdateFlags(optimizer=owner) for owner in owners])
    names = ("adam", "adagrad", "momentum")
    shards = shards_of(layout, [OptimizerSpec(name, {"learning_rate": 0.1}) for name in names], count=2)
    for shard in shards:
        shard.join(0, 1)
    theirs = [keras_of(keras, name, {"learning_rate": 0.1}) for name in names]
    variables = [keras.Variable(part, name=f"w{i}") for i, part in enumerate(np.split(initial(), edges()[1:-1]))]
    for index, optimizer in enumerate(theirs):
        optimizer.build([v for v, owner in zip(variables, owners, strict=True) if owner == index])
    rng = np.random.default_rng(11)
    for seq, chosen in enumerate(random_sets(13, 20), start=1):
        gradient = rng.standard_normal(N).astype(np.float32)
        pieces = np.split(gradient, edges()[1:-1])
        for index in {owners[i] for i in chosen}:
            own = [i for i in chosen if owners[i] == index]
            theirs[index].apply([keras.ops.convert_to_tensor(pieces[i]) for i in own], [variables[i] for i in own])
        push_to(shards, layout, Push(0, 1, seq, seq - 1, tensors=bitmap_of(chosen, len(SIZES))), gradient)
        assert shards[0].updates == shards[1].updates == [int(optimizer.iterations) for optimizer in theirs]
    expected = np.concatenate([variable.numpy() for variable in variables])
    np.testing.assert_allclose(weights_of(shards, layout), expected, rtol=1e-5, atol=1e-6)


def test_the_state_of_several_optimizers_is_restored() -> None:
    layout = layout_of([UpdateFlags(optimizer=index % 2) for index in range(len(SIZES))])
    optimizers = [OptimizerSpec("adam", {}), OptimizerSpec("adagrad", {})]
    (first,), (second,) = (shards_of(layout, optimizers) for _ in range(2))
    first.join(0, 1)
    gradient = np.ones(N, np.float32)
    for seq, chosen in enumerate(([0, 1], [0], [2]), start=1):
        push_to([first], layout, Push(0, 1, seq, seq - 1, tensors=bitmap_of(chosen, 5)), gradient)
    assert first.updates == [3, 1]
    buffer, version = first.pull()
    second.restore(buffer.array, version, first.optimizer_state(), 2)
    second.join(0, 1)
    assert second.updates == [3, 1]
    for shard in (first, second):
        push_to([shard], layout, Push(0, 1, 4, version), gradient)
    np.testing.assert_array_equal(weights_of([first], layout), weights_of([second], layout))
    with pytest.raises(ValueError, match="step must be 2 integers"):
        second.restore(buffer.array, version, {**first.optimizer_state(), "step": np.array(1)}, 3)


@pytest.mark.parametrize(
    ("optimizer", "policy"),
    [*((name, "none") for name in OPTIMIZERS), *(("adam", row.example or name) for name, row in POLICIES.items())],
)
@pytest.mark.parametrize("mode", GRADIENT_MODES)
def test_in_a_group_a_missing_tensor_has_a_gradient_of_0_and_one_that_none_covers_stays(
    mode: str, optimizer: str, policy: str
) -> None:
    """The same pushes with zeros in place of the missing tensors give the same weights of all that any covers."""
    layout = layout_of()
    optimizers = [OptimizerSpec(optimizer, {"learning_rate": 0.1})]
    (some,), (zeros,) = (shards_of(layout, optimizers, mode, policy) for _ in range(2))
    rng, sets = np.random.default_rng(3), [[0, 2], [2, 3]]
    gradients = [rng.standard_normal(N).astype(np.float32) for _ in sets]
    for shard in (some, zeros):
        for worker in range(2):
            shard.join(worker, 1)
    for worker, (chosen, gradient) in enumerate(zip(sets, gradients, strict=True)):
        covered = places(chosen if some.consistency.buffers else [0, 2, 3])
        bitmap = bitmap_of(np.unique(chosen if some.consistency.buffers else [0, 2, 3]).tolist(), len(SIZES))
        push = Push(worker, 1, 1, some.version, samples=worker + 1, tensors=bitmap)
        push_to([some], layout, push, gradient)
        push_to([zeros], layout, push._replace(tensors=b""), np.where(covered, gradient, 0).astype(np.float32))
    union = places([0, 2, 3])
    assert some.version == zeros.version > 0 or mode.startswith(("ksync", "backup", "rennala"))
    for shard in (some, zeros):
        shard.flush()
    np.testing.assert_array_equal(weights_of([some], layout)[union], weights_of([zeros], layout)[union])
    np.testing.assert_array_equal(weights_of([some], layout)[~union], initial()[~union])


@pytest.mark.parametrize("mode", [row.example for row in MODES.values() if row.example not in GRADIENT_MODES])
def test_modes_without_gradients_refuse_a_push_of_some_tensors(mode: str) -> None:
    layout = layout_of()
    (shard,) = shards_of(layout, [OptimizerSpec("sgd", {})], mode)
    shard.join(0, 1)
    with pytest.raises(InvalidRequest, match="a push of some tensors must be a gradient"):
        push_to([shard], layout, Push(0, 1, 1, 0, tensors=bitmap_of([0], len(SIZES))), np.ones(N, np.float32))
    assert shard.version == 0


@pytest.mark.parametrize("mode", ["async", "bsp"])
def test_a_tensor_that_is_overwritten_has_the_value_that_is_pushed(mode: str) -> None:
    layout = layout_of([UpdateFlags(overwrites=index == 2) for index in range(len(SIZES))])
    (shard,) = shards_of(layout, [OptimizerSpec("adam", {"learning_rate": 0.1, "weight_decay": 0.5})], mode)
    for worker in range(2):
        shard.join(worker, 1)
    for worker, chosen in enumerate(([0, 1, 2, 3, 4], [0, 1])):
        push = Push(worker, 1, 1, shard.version, samples=3, tensors=bitmap_of(chosen, len(SIZES)))
        push_to([shard], layout, push, np.full(N, 0.25, np.float32))
    after = weights_of([shard], layout)
    assert (after[places([2])] == 0.25).all() and (after[places([0, 1, 3])] != 0.25).all()
    assert not any(slot[places([2])].any() for name, slot in shard.optimizer_state().items() if name != "step")


def test_a_push_is_applied_once_however_often_it_arrives() -> None:
    layout = layout_of()
    shards = shards_of(layout, [OptimizerSpec("adam", {})])
    shards[0].join(0, 1)
    push = Push(0, 1, 1, 0, tensors=bitmap_of([1], len(SIZES)))
    push_to(shards, layout, push, np.ones(N, np.float32))
    after = weights_of(shards, layout)
    push_to(shards, layout, push, np.ones(N, np.float32))
    np.testing.assert_array_equal(weights_of(shards, layout), after)
    assert shards[0].updates == [1]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.data())
def test_a_coverage_has_each_covered_element_once_on_one_shard(sizes: list[int], data: st.DataObject) -> None:
    sizes = [*sizes, 1]
    layout = Layout.of([(f"w{i}", (size,), TRAINED) for i, size in enumerate(sizes)])
    count = data.draw(st.integers(1, min(4, layout.trained)))
    chosen = data.draw(st.sets(st.integers(0, len(sizes) - 1), min_size=1))
    bitmap = bitmap_of(chosen, len(sizes))
    assert covered_tensors(bitmap, len(sizes)) == chosen
    whole = np.arange(1, layout.trained + 1, dtype=np.float32)
    starts = [0, *np.cumsum(sizes).tolist()]
    expected = np.concatenate([whole[starts[i] : starts[i + 1]] for i in sorted(chosen)])
    parts = layout.cut(count)
    coverages = [Coverage.of(bitmap, layout, part) for part in parts]
    found = [c.compress(whole[p.start : p.stop]) for c, p in zip(coverages, parts, strict=True)]
    np.testing.assert_array_equal(np.concatenate(found), expected)
    spread = np.concatenate([c.expand(part) for c, part in zip(coverages, found, strict=True)])
    assert np.flatnonzero(spread).tolist() == [int(element) - 1 for element in expected]
    for coverage in coverages:
        gaps = sum(gap.stop - gap.start for gap in coverage.gaps)
        assert gaps + coverage.size == coverage.trained


@pytest.mark.parametrize("bitmap", [b"\0", b"\xff", b"\1\0", b"\0\0\0"])
def test_a_bitmap_that_does_not_fit_the_layout_is_refused(bitmap: bytes) -> None:
    (shard,) = shards_of(layout_of(), [OptimizerSpec("sgd", {})])
    shard.join(0, 1)
    with pytest.raises(InvalidRequest, match="some of the 5 trained tensors"):
        shard.push(Push(0, 1, 1, 0, tensors=bitmap), np.ones(3, np.float32))
    with pytest.raises(InvalidRequest, match="must have 5 elements; received 4"):
        shard.push(Push(0, 1, 1, 0, tensors=b"\1"), np.ones(4, np.float32))
    assert shard.version == 0


def test_the_number_of_remembered_coverages_is_bounded() -> None:
    layout = Layout.of([(f"w{i}", (1,), TRAINED) for i in range(16)])
    optimizer = TensorOptimizer([OptimizerSpec("sgd", {})], layout, layout.cut(1)[0])
    for bits in range(1, 2 * REMEMBERED_COVERAGES):
        optimizer.coverage(bits.to_bytes(2, "little"))
    assert len(optimizer._coverages) <= REMEMBERED_COVERAGES


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(("name", "momentum", "every"), [("sgd", 0.5, 0), ("adam", 0.9, 3), ("momentum", 0.99, 1)])
def test_averages_of_the_weights_are_those_of_keras(
    keras: Any, name: str, momentum: float, every: int, count: int
) -> None:
    """Also weights that a push does not cover are averaged, and the average replaces all weights after some updates."""
    hyper = {"learning_rate": 0.05}
    layout = layout_of([UpdateFlags()] * len(SIZES))
    settings = [OptimizerSpec(name, dict(hyper), average=WeightAverage(momentum, every))]
    shards = shards_of(layout, settings, count=count)
    for shard in shards:
        shard.join(0, 1)
    theirs = keras_of(keras, name, hyper)
    theirs.use_ema, theirs.ema_momentum, theirs.ema_overwrite_frequency = True, momentum, every or None
    variables = [keras.Variable(part, name=f"w{i}") for i, part in enumerate(np.split(initial(), edges()[1:-1]))]
    theirs.build(variables)
    rng = np.random.default_rng(7)
    for seq, chosen in enumerate(random_sets(3), start=1):
        gradient = rng.standard_normal(N).astype(np.float32)
        pieces = np.split(gradient, edges()[1:-1])
        theirs.apply([keras.ops.convert_to_tensor(pieces[i]) for i in chosen], [variables[i] for i in chosen])
        push = Push(0, 1, seq, seq - 1, tensors=bitmap_of(chosen, len(SIZES)))
        push_to(shards, layout, push, gradient)
        expected = np.concatenate([np.asarray(variable) for variable in variables])
        np.testing.assert_allclose(weights_of(shards, layout), expected, rtol=1e-5, atol=1e-6)
    averages = np.concatenate([np.asarray(each) for each in theirs._model_variables_moving_average])
    np.testing.assert_allclose(slots_of(shards)["average"], averages, rtol=1e-5, atol=1e-6)
