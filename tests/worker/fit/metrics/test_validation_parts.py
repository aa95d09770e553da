"""The parts of the validation data contain each batch once, and the sums of the metrics are those of one process."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import Unsupported
from downpour.worker.fit.metrics.metric_reduction import read_metrics
from downpour.worker.fit.metrics.spread_validation import (
    check_evaluated,
    spread_validation,
    sum_validation,
    validation_of,
)
from downpour.worker.fit.metrics.validation_parts import ValidationParts

SPREAD: Any = SimpleNamespace(spreads_validation=True, size=3)


class Batches(keras.utils.PyDataset):
    """Batches of arrays."""

    def __init__(self, x: np.ndarray, y: np.ndarray, size: int) -> None:
        super().__init__()
        self.x, self.y, self.size = x, y, size

    def __len__(self) -> int:
        return -(-len(self.x) // self.size)

    def __getitem__(self, index: int) -> Any:
        rows = slice(index * self.size, (index + 1) * self.size)
        return self.x[rows], self.y[rows]


class Shuffled(Batches):
    def on_epoch_end(self) -> None:
        """Change the order, as a dataset of training data does."""


@settings(max_examples=30, deadline=None)
@given(samples=st.integers(1, 60), size=st.integers(1, 20), workers=st.integers(1, 6))
def test_each_sample_is_in_one_part_and_batches_are_those_of_one_process(samples: int, size: int, workers: int) -> None:
    x = np.arange(samples)
    parts = ValidationParts((x, {"a": 2 * x}, None), size, None, workers)
    found = [part for rank in range(workers) if (part := parts.part(rank)) is not None]
    assert np.concatenate([inputs for inputs, _, _ in found]).tolist() == x.tolist()
    assert parts.part(0) is not None, "worker 0 evaluates in any case"
    assert parts.part(workers) is None, "a worker that joined later has no part"
    for inputs, targets, weight in found:
        assert inputs[0] % size == 0 and (targets["a"] == 2 * inputs).all() and weight is None


@settings(max_examples=10, deadline=None)
@given(samples=st.integers(1, 40), size=st.integers(1, 9), workers=st.integers(1, 5))
def test_each_batch_of_a_dataset_is_in_one_part(samples: int, size: int, workers: int) -> None:
    whole = Batches(np.arange(samples), np.arange(samples), size)
    parts = ValidationParts(whole, None, None, workers)
    found: list[int] = []
    for rank in range(workers):
        part = parts.part(rank)
        for index in range(0 if part is None else part.num_batches):
            found += part[index][0].tolist()
    assert sorted(found) == list(range(samples)) and parts.part(workers) is None


def model_of(**compiled: Any) -> Any:
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "softmax")])
    model.compile(loss="sparse_categorical_crossentropy", **compiled)
    return model


@pytest.mark.parametrize("dead", [set(), {1}, {1, 2}, {0, 1, 2}])
@pytest.mark.parametrize("kind", ["arrays", "weighted", "dataset"])
def test_the_logs_are_those_of_one_process_also_if_a_worker_has_died(kind: str, dead: set[int]) -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(103, 3)).astype("float32"), random.integers(0, 4, 103)
    data: Any = (x, y, random.uniform(size=103)) if kind == "weighted" else (x, y)
    data = Batches(x, y, 8) if kind == "dataset" else data
    metrics = ["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2, name="top")]
    model = model_of(metrics=metrics, weighted_metrics=["sparse_categorical_crossentropy"])
    options = {"batch_size": 8, "verbose": 0, "return_dict": True}
    parts = ValidationParts(data, 8, None, 3)
    whole = keras.utils.unpack_x_y_sample_weight(data) if kind != "dataset" else (data, None, None)
    expected = model.evaluate(whole[0], whole[1], sample_weight=whole[2], **options)
    sums = np.zeros(0)
    live = sorted({0, 1, 2} - dead)
    for rank in live:
        x_part, y_part, weight = parts.arguments(rank)
        model.evaluate(x_part, y_part, sample_weight=weight, **options)
        sums = np.array(read_metrics(model, True)) + (sums if len(sums) else 0.0)
    reply = pb.BarrierReply(validated=live, validation=sums)
    found = sum_validation(model, parts, reply, 3)
    assert found == pytest.approx(expected, rel=1e-5)
    assert {name: float(value) for name, value in model.get_metrics_result().items()} == pytest.approx(found)


def two_outputs(metrics: Any) -> Any:
    keras.utils.set_random_seed(1)
    x = keras.Input((3,))
    model = keras.Model(x, {"a": keras.layers.Dense(1, name="a")(x), "b": keras.layers.Dense(2, name="b")(x)})
    model.compile(loss={"a": "mse", "b": "mae"}, loss_weights={"a": 0.3, "b": 2.0}, metrics=metrics)
    return model


@pytest.mark.parametrize("metrics", [None, {"a": ["mae"], "b": ["mse", keras.metrics.RootMeanSquaredError()]}])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dead", [set(), {1}])
def test_a_model_with_several_outputs_has_the_logs_of_one_process(metrics: Any, weighted: bool, dead: set[int]) -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(53, 3)), {"a": random.normal(size=(53, 1)), "b": random.normal(size=(53, 2))}
    weights = {"a": random.uniform(size=53), "b": random.integers(0, 2, 53).astype(float)} if weighted else None
    model, options = two_outputs(metrics), {"batch_size": 8, "verbose": 0, "return_dict": True}
    expected = model.evaluate(x, y, sample_weight=weights, **options)
    parts = ValidationParts((x, y, weights) if weighted else (x, y), 8, None, 3)
    states = []
    for rank in sorted({0, 1, 2} - dead):
        x_part, y_part, weight = parts.arguments(rank)
        model.evaluate(x_part, y_part, sample_weight=weight, **options)
        states.append(read_metrics(model, True))
    reply = pb.BarrierReply(validated=sorted({0, 1, 2} - dead), validation=np.sum(states, axis=0))
    assert sum_validation(model, parts, reply, 3) == pytest.approx(expected, rel=1e-5)


class Largest(keras.metrics.Metric):
    """A metric that is no sum, with any aggregation and initial value."""

    def __init__(self, aggregation: str, initializer: Any = "zeros") -> None:
        super().__init__(name="largest")
        self.largest = self.add_variable((), initializer, name="value", aggregation=aggregation)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.largest.assign(keras.ops.maximum(self.largest, keras.ops.max(y_pred)))

    def result(self) -> Any:
        return self.largest.value


class OwnLogs(keras.Model):
    def compute_metrics(self, *args: Any, **kwargs: Any) -> Any:
        return {"found": 1.0}


class OwnTest(keras.Model):
    def test_step(self, data: Any) -> Any:
        return {"found": 1.0}


def given_of(data: Any, **more: Any) -> dict[str, Any]:
    return {"validation_data": data, "validation_batch_size": None, "batch_size": 8, "validation_steps": None, **more}


ARRAYS = (np.zeros((20, 3), "float32"), np.zeros(20, int))


@pytest.mark.parametrize(
    ("data", "more", "received"),
    [
        (ARRAYS, {"validation_steps": 2}, "validation_steps=2"),
        (tf.data.Dataset.from_tensor_slices(ARRAYS).batch(8), {}, "Received: .*Dataset"),
        ((each for each in [ARRAYS]), {}, "Received: generator"),
        (Shuffled(*ARRAYS, 8), {}, "one that defines on_epoch_end"),
    ],
)
def test_data_that_cannot_be_divided_are_refused(data: Any, more: dict[str, Any], received: str) -> None:
    with pytest.raises(Unsupported, match=f"--spread-validation.*{received}.*Leave --spread-validation out"):
        spread_validation(model_of(), given_of(data, **more), SPREAD)


@pytest.mark.parametrize(
    "model",
    [
        lambda: model_of(metrics=[Largest("only_first_replica")]),
        lambda: model_of(metrics=[Largest("mean")]),
        lambda: model_of(weighted_metrics=[Largest("sum", keras.initializers.Constant(-1e9))]),
        lambda: OwnTest(),
        lambda: OwnLogs(),
    ],
)
def test_results_that_are_no_sums_are_refused(model: Callable[[], Any]) -> None:
    with pytest.raises(Unsupported, match="with --spread-validation"):
        spread_validation(model(), given_of(ARRAYS), SPREAD)


def test_arrays_of_different_lengths_are_refused_as_by_keras() -> None:
    with pytest.raises(ValueError, match="cardinality"):
        ValidationParts((np.zeros((16, 3)), np.zeros(24)), 8, None, 3)


def test_what_changed_the_evaluation_of_a_part_is_refused() -> None:
    model = model_of(metrics=["accuracy"])
    model.evaluate(*ARRAYS, verbose=0)
    check_evaluated(model, has_assigned=False)
    with pytest.raises(Unsupported, match="one that has assigned weights"):
        check_evaluated(model, has_assigned=True)
    model.stop_evaluating = True
    with pytest.raises(Unsupported, match="stop_evaluating"):
        check_evaluated(model, has_assigned=False)
    model = model_of(metrics=[Largest("mean")])  # a metric may make its variables with its first batch
    model.evaluate(*ARRAYS, verbose=0)
    with pytest.raises(Unsupported, match="Received: .*, which is not"):
        check_evaluated(model, has_assigned=False)


def test_worker_0_evaluates_all_unless_the_setting_is_given() -> None:
    alone: Any = SimpleNamespace(spreads_validation=False, size=3)
    assert spread_validation(model_of(), given_of(ARRAYS), alone) is None
    assert spread_validation(model_of(), given_of(None), SPREAD) is None
    assert spread_validation(model_of(metrics=["accuracy"]), given_of(ARRAYS), SPREAD) is not None


def test_the_logs_of_a_validation_are_found_among_those_of_an_epoch() -> None:
    assert validation_of({"loss": 1.0, "val_loss": 2.0, "val_val_own": 3.0}) == {"loss": 2.0, "val_own": 3.0}
