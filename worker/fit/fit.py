"""The replacement of `model.fit` in a script that `downpour run` has started: it prepares the arguments of each worker.

Each worker trains on its part of the data in Keras's own loop; `epochs` does the work between epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from downpour.protos.errors import Unsupported
from downpour.worker.fit.data_parts import part_of, peek, steps_of, validation_split
from downpour.worker.fit.distributed_optimizer import set_gradient_op
from downpour.worker.fit.epochs import Epochs, FitArguments
from downpour.worker.fit.keras_hooks import FirstCallback, LastCallback, TrainerHooks
from downpour.worker.fit.leased_dataset import LeasedDataset, Leases
from downpour.worker.fit.member import ScriptWorker
from downpour.worker.fit.optimizer_checks import check_supported


def distributed_fit(fit: Callable[..., Any], model: keras.Model, member: ScriptWorker, given: dict[str, Any]) -> Any:
    """Train a model together with the other workers.

    Args:
        fit: Keras's own `fit`.
        model: A model that is compiled with a distributed optimizer.
        member: This worker.
        given: All arguments of `fit` except the model.

    Returns:
        The history, which is the same on all workers.

    Raises:
        Unsupported: An argument of `fit`, the model, or what has become of its optimizer is not supported.
        DownpourError: A server cannot be reached, or has reported an error.
        Diverged: Too many gradients in a row were not finite.
    """
    check_supported(model.optimizer)
    dataset = given["x"] if isinstance(given["x"], LeasedDataset) else None
    leases = Leases(member) if dataset is not None else None
    given["x"] = build_weights(model, given["x"], given["y"], given["sample_weight"])
    callbacks = _listed(given["callbacks"])
    epochs = Epochs(model, member, FitArguments(given["initial_epoch"], given["epochs"], callbacks, dataset, leases))
    arguments = _own_part(given, member, leases)
    arguments["callbacks"] = [
        FirstCallback(epochs), *(callbacks if member.is_leader else []), LastCallback(epochs),
    ]  # fmt: skip
    failure = ""
    try:
        with TrainerHooks(epochs):
            history = fit(model, **arguments)
        epochs.complete(history)
        # Only worker 0 has validated and run callbacks, which may have drawn random numbers. What the script builds or
        # shuffles after `fit` must be the same on all workers again.
        keras.utils.set_random_seed((member.seed + member.stages) % 2**32)
        return history
    except Exception as error:
        cause = epochs.error or error
        failure = str(cause) or type(cause).__name__
        if cause is not error:
            raise cause from None
        raise
    finally:
        member.leave(failure)


def _own_part(given: dict[str, Any], member: ScriptWorker, leases: Leases | None) -> dict[str, Any]:
    """Return the arguments of this worker: its part of the data, and validation and progress bar only on worker 0."""
    rank, size = member.rank, member.size
    own = dict(given)
    if given["validation_split"] and given["validation_data"] is None:
        whole = (given["x"], given["y"], given["sample_weight"])
        (own["x"], own["y"], own["sample_weight"]), own["validation_data"] = validation_split(
            *whole, given["validation_split"]
        )
    own["validation_split"] = 0.0
    if leases is not None:
        own["x"], own["shuffle"] = own["x"].leased_batches(member, leases), False
    else:
        for name in ("x", "y", "sample_weight"):
            own[name] = part_of(own[name], rank, size, member.seed)
        own["steps_per_epoch"] = steps_of(given["steps_per_epoch"], rank, size)
    if not member.is_leader:
        own["validation_data"], own["verbose"] = None, 0
    return own


def _listed(callbacks: Any) -> list[Any]:
    """Return the callbacks of the script as a list.

    Raises:
        Unsupported: A callback restores weights or counters that the servers do not have.
    """
    one = isinstance(callbacks, keras.callbacks.Callback) and not hasattr(callbacks, "callbacks")
    listed = [callbacks] if one else list(getattr(callbacks, "callbacks", callbacks) or ())
    for callback in listed:
        if isinstance(callback, keras.callbacks.BackupAndRestore | keras.callbacks.SwapEMAWeights):
            raise Unsupported(
                "fit must have no callback that keeps weights or counters in one process. "
                f"Received: {type(callback).__name__}. Use ModelCheckpoint."
            )
    return listed


class NullGradientOp:
    """A stand-in for `GradientOp` while a train step is only traced; it sends nothing."""

    def set_loss(self, loss: Any) -> None:
        """Ignore the loss."""

    def step(self, gradients: Mapping[int, Any]) -> None:
        """Ignore the gradients."""


def build_weights(model: keras.Model, x: Any, y: Any = None, sample_weight: Any = None) -> Any:
    """Build the weights of a model that has not been called yet, and those that its own `train_step` creates.

    Args:
        model: A compiled model.
        x: The argument of `fit`.
        y: The argument of `fit`.
        sample_weight: The argument of `fit`.

    Returns:
        Data equal to `x`; a generator is returned with the batch that was read from it put back.
    """
    own_step = type(model).train_step is not keras.Model.train_step
    if _is_built(model) and not own_step:
        return x
    batch, x = x.peek() if isinstance(x, LeasedDataset) else peek(x, y, sample_weight)
    batch = keras.tree.map_structure(_tensor, batch)
    if own_step:
        _trace(model, batch)
    if not _is_built(model):
        _call(model, keras.utils.unpack_x_y_sample_weight(batch)[0])
    return x


def _is_built(model: keras.Model) -> bool:
    return bool(model.built) and all(layer.built for layer in model._flatten_layers())


def _call(model: keras.Model, inputs: Any) -> None:
    try:
        model(inputs, training=False)
    # A model with a train_step of its own need not be callable; `GradientOp.step` refuses weights that appear later.
    except Exception:
        if not model.trainable_variables:
            raise


def _trace(model: keras.Model, batch: Any) -> None:
    """Trace the model's own train step, which may create weights that no call of the model creates."""
    optimizer = model.optimizer
    iterations = int(optimizer._iterations.numpy())
    set_gradient_op(optimizer, NullGradientOp())
    # An error here occurs again in `fit`, which raises it; a step that cannot be traced may still run.
    try:
        step = model.train_step if model.run_eagerly else tf.function(model.train_step).get_concrete_function
        step(batch)
    except Exception:
        return
    finally:
        set_gradient_op(optimizer, None)
        optimizer._iterations.assign(iterations)


def _tensor(array: Any) -> Any:
    """Return an array as the tensor that Keras passes to a train step."""
    if array is None:
        return None
    tensor = tf.convert_to_tensor(np.asarray(array) if hasattr(array, "iloc") else array)
    return tf.cast(tensor, keras.config.floatx()) if tensor.dtype.is_floating else tensor
