"""Metrics of several workers, put together, are those of one process that has seen all batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from downpour.worker.fit.metrics.metric_reduction import read_metrics, warn_of_initial_sums, write_metrics

WORKERS = 3


@pytest.fixture(scope="module")
def keras() -> Any:
    import keras

    return keras


def model_of(keras: Any, *own: Any) -> Any:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, activation="sigmoid")])
    counts = [getattr(keras.metrics, name)(name=name) for name in ("AUC", "Precision", "Recall")]
    metrics = ["accuracy", "mae", *counts, *own]
    model.compile("sgd", "binary_crossentropy", metrics=metrics)
    return model


def seen(model: Any, batches: list[Any]) -> Any:
    model.reset_metrics()
    for x, y, outputs in batches:
        model.compute_metrics(x, y, outputs)
    return model


def batches_of(rank: int) -> list[Any]:
    rng = np.random.default_rng(rank)
    sizes = (8, 8, 3 + rank)
    return [
        (np.zeros((n, 2), np.float32), rng.integers(0, 2, (n, 1)), rng.random((n, 1), np.float32)) for n in sizes
    ]  # fmt: skip


def test_the_sum_over_workers_is_what_one_process_has(keras: Any) -> None:
    parts = [batches_of(rank) for rank in range(WORKERS)]
    values = [read_metrics(seen(model_of(keras), part), is_leader=rank == 0) for rank, part in enumerate(parts)]
    together = model_of(keras)
    seen(together, parts[0])
    write_metrics(together, np.sum(values, axis=0), workers=WORKERS)
    whole = seen(model_of(keras), sum(parts, [])).get_metrics_result()
    found = together.get_metrics_result()
    assert set(found) == set(whole) and len(found) >= 5
    for name, value in whole.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def own_metric(keras: Any, aggregation: str, initial: float = 0.0, dtype: str = "float32") -> Any:
    class Own(keras.metrics.Metric):
        def __init__(self) -> None:
            super().__init__(name="own")
            self.value = self.add_variable(
                (2,), keras.initializers.Constant(initial), name="value", dtype=dtype, aggregation=aggregation
            )

        def update_state(self, y: Any, outputs: Any, sample_weight: Any = None) -> None:
            self.value.assign_add(keras.ops.ones((2,), dtype))

        def result(self) -> Any:
            return self.value

        def reset_state(self) -> None:
            self.value.assign(keras.ops.full((2,), initial, dtype))

    return Own()


@pytest.mark.parametrize(
    ("aggregation", "expected"), [("sum", 6 + 2 + 1), ("mean", 3.0), ("only_first_replica", 6), ("none", 6)]
)
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_a_variable_is_reduced_according_to_its_aggregation(
    keras: Any, aggregation: str, expected: float, dtype: str
) -> None:
    metrics = [own_metric(keras, aggregation, dtype=dtype) for _ in range(WORKERS)]
    models = [model_of(keras, metric) for metric in metrics]
    x, y, outputs = batches_of(0)[0]
    for model, metric, count in zip(models, metrics, (6, 2, 1), strict=True):
        model.compute_metrics(x, y, outputs)  # it makes the variables of Keras's own
        model.reset_metrics()
        for _ in range(count):
            metric.update_state(y, outputs)
    sums = np.sum([read_metrics(model, is_leader=rank == 0) for rank, model in enumerate(models)], axis=0)
    for model, metric in zip(models, metrics, strict=True):
        write_metrics(model, sums, workers=WORKERS)
        np.testing.assert_array_equal(np.asarray(metric.result()), [expected] * 2)


def test_a_model_without_metrics_has_no_values(keras: Any) -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    assert read_metrics(model, is_leader=True) == []
    write_metrics(model, np.empty(0), workers=2)


@pytest.mark.parametrize(
    ("aggregation", "initial", "named"), [("sum", -np.inf, True), ("sum", 0.0, False), ("mean", 1.0, False)]
)
def test_a_sum_that_does_not_begin_at_0_is_named(
    keras: Any, aggregation: str, initial: float, named: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    model = seen(model_of(keras, own_metric(keras, aggregation, initial)), batches_of(0)[:1])
    model.reset_metrics()
    assert warn_of_initial_sums(model) is named
    assert ("own/value" in capsys.readouterr().err) is named
