"""Parts of a script's worker in isolation: its samples, the state that it receives from worker 0, its files."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.layout import STATE, TRAINED, Layout
from downpour.worker.fit.callback_state import encode_callbacks, encode_logs, logs_of, restore_callbacks


@pytest.mark.parametrize("kind", ["array", "tensor", "ragged"])
def test_alternating_samples_are_assigned_at_random_and_each_once(kind: str) -> None:
    import tensorflow as tf

    from downpour.worker.fit.data.data_parts import part_of

    x, y = np.arange(1000), np.arange(1000) % 2
    given = {"array": x, "tensor": tf.constant(x), "ragged": tf.RaggedTensor.from_row_lengths(x, np.ones(1000, int))}
    parts = [np.ravel(np.asarray(_flat(part_of(given[kind], rank, 4, seed=7)))) for rank in range(4)]
    targets = [part_of(y, rank, 4, seed=7) for rank in range(4)]
    assert sorted(np.concatenate(parts)) == x.tolist()
    assert [len(part) for part in parts] == [250] * 4
    for part, target in zip(parts, targets, strict=True):
        np.testing.assert_array_equal(part % 2, target)
        assert (np.diff(part) > 0).all()
        assert 0.35 < target.mean() < 0.65


def _flat(part: Any) -> Any:
    return getattr(part, "flat_values", part)


class Seen:
    """As a callback is: with attributes of its own and of Keras's."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


class Other(Seen):
    pass


def test_callbacks_of_other_workers_receive_the_state_that_is_sent() -> None:
    leads = Seen(
        params={"epochs": 1}, _model=object(), losses=[0.5, np.float32(0.25)], best=None, name="a",
        by_epoch={0: np.arange(3, dtype=np.float32), (1, 2): True}, weights=[np.zeros(100_000)], file=object(),
    )  # fmt: skip
    follows = Seen(kept=1)
    restore_callbacks([follows, Other()], encode_callbacks([leads, Seen(no="class")]))
    assert follows.losses == [0.5, 0.25] and follows.best is None and follows.name == "a"  # type: ignore[attr-defined]
    by_epoch = follows.by_epoch  # type: ignore[attr-defined]
    assert by_epoch[0].dtype == np.float32 and by_epoch[(1, 2)] is True
    assert set(vars(follows)) == {"kept", "losses", "best", "name", "by_epoch"}
    restore_callbacks([follows], "")


def test_lists_and_dicts_of_the_script_stay_the_same_objects() -> None:
    losses, by_name = [0.5], {"a": 1}
    follows = Seen(losses=losses, by_name=by_name)
    restore_callbacks([follows], encode_callbacks([Seen(losses=[0.5, 0.25], by_name={"b": 2})]))
    assert losses == [0.5, 0.25] and by_name == {"b": 2}
    assert follows.losses is losses  # type: ignore[attr-defined]


def test_values_that_are_too_large_are_not_sent() -> None:
    callback = Seen(many=["x" * 1000] * 2000, few=[1])
    (state,) = json.loads(encode_callbacks([callback]))
    assert state["state"] == {"few": [1]}


def test_logs_that_are_no_numbers_travel() -> None:
    assert logs_of(pb.Decision(**encode_logs({}))) == {}
    given = {"f1": np.array([0.5, 0.75]), "odd": np.array(["text"]), "name": "a", "by": {"a": 0.5}, "loss": 2}
    back = logs_of(pb.Decision(**encode_logs(given)))
    assert (back.pop("name"), back.pop("by"), back.pop("loss")) == ("a", {"a": 0.5}, 2.0)
    np.testing.assert_array_equal(back["f1"], [0.5, 0.75])
    assert set(back) == {"f1"}


def test_layouts_of_other_names_fit() -> None:
    ours = Layout.of([("dense/kernel", (2, 3), TRAINED), ("norm/mean", (3,), STATE)])
    assert ours.fits(Layout.of([("dense_1/kernel", (2, 3), TRAINED), ("norm_1/mean", (3,), STATE)]))
    assert not ours.fits(Layout.of([("dense/kernel", (3, 2), TRAINED), ("norm/mean", (3,), STATE)]))
    assert not ours.fits(Layout.of([("dense/kernel", (2, 3), TRAINED), ("norm/mean", (3,), TRAINED)]))


@pytest.mark.parametrize("tensors", [1, 2])
def test_no_reply_overwrites_the_weights_of_a_model(tensors: int) -> None:
    import keras
    import tensorflow as tf

    from downpour.worker.exchange.pages import pages
    from downpour.worker.fit.optimizer.gradient_op import GradientOp
    from downpour.worker.fit.optimizer.model_optimizers import ModelOptimizers

    keras.utils.set_random_seed(1)
    sgd = keras.optimizers.SGD()
    model = keras.Sequential([keras.layers.Input((16,)), keras.layers.Dense(16, use_bias=tensors == 2)])
    replies = np.frombuffer(pages(4 * model.count_params()), np.float32)

    class ScriptWorker:
        nonfinite_limit, spent, versions, clip_norm, outdated = 1, None, (0,), 0.0, False

        def push_pull(self, gradient: np.ndarray, info: object) -> np.ndarray:
            replies[:] += 1
            return replies

    op = GradientOp(model, ModelOptimizers([sgd]), ScriptWorker())  # type: ignore[arg-type]
    tf.function(lambda: op.step(sgd, {id(v): v.value for v in model.trainable_variables}))()
    replies[:] = 7
    for variable in model.trainable_variables:
        assert (variable.numpy() == 1).all()
