"""The building of a model's weights before the first step, so that the layout is known when a worker registers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from downpour.protos.errors import Unsupported
from downpour.worker.fit.data.data_parts import peek
from downpour.worker.fit.data.leased_dataset import LeasedDataset
from downpour.worker.fit.optimizer.assignments import Assignments, is_other, recorded_assignments
from downpour.worker.fit.optimizer.distributed_optimizer import recorded
from downpour.worker.fit.optimizer.model_optimizers import Applied, optimizers_of

TraceCache = dict[tuple[Any, ...], tuple[tuple[Applied, Assignments | None], Any]]


def build_weights(
    model: keras.Model, x: Any, y: Any = None, sample_weight: Any = None, known: TraceCache | None = None
) -> tuple[Any, Applied | None, Assignments | None]:
    """Build the weights of a model that has not been called yet, and those that its own `train_step` creates.

    Args:
        model: A compiled model.
        x: The argument of `fit`.
        y: The argument of `fit`.
        sample_weight: The argument of `fit`.
        known: What earlier traces of the train step have found, which this one is added to.

    Returns:
        Data equal to `x`; a generator is returned with the batch that was read from it put back. The optimizers and
        variables of the model's own train step; None if it has none, and empty if it cannot be traced. And the
        variables that the train step assigns, if it is the model's own or the model has integers or booleans.
    """
    own_step = type(model).train_step is not keras.Model.train_step or "train_step" in vars(model)
    if _is_built(model) and not own_step and not _has_others(model):
        return x, None, None
    applied: Applied | None = None
    assigned: Assignments | None = None
    batch, x = x.peek() if isinstance(x, LeasedDataset) else peek(x, y, sample_weight)
    batch = keras.tree.map_structure(_tensor, batch)
    if own_step:
        applied, assigned = _traced(model, batch, known)
    if not _is_built(model):
        _call(model, keras.utils.unpack_x_y_sample_weight(batch)[0])
    if not own_step and _has_others(model):
        _, assigned = _traced(model, batch, known)
    return x, applied, assigned


def _has_others(model: keras.Model) -> bool:
    return any(map(is_other, model.non_trainable_variables))


def _is_built(model: keras.Model) -> bool:
    return bool(model.built) and all(layer.built for layer in model._flatten_layers())


def _call(model: keras.Model, inputs: Any) -> None:
    try:
        model(inputs, training=False)
    # A model with a train_step of its own need not be callable; `GradientOp.step` refuses weights that appear later.
    except Exception:
        if not model.trainable_variables:
            raise


def _traced(model: keras.Model, batch: Any, known: TraceCache | None) -> tuple[Applied, Assignments | None]:
    """Return what a trace of the train step finds, from an earlier one of the same function if there is one.

    Python code that runs in every step may do something else in every call.
    """
    if known is None or model.run_eagerly:
        return _trace(model, batch)
    spec = str(keras.tree.map_structure(_spec, batch))
    if (found := known.get(_key(model, spec))) is not None:
        return found[0]
    applied, assigned = _trace(model, batch)
    if applied:
        # The variables may exist only now, and must exist as long as their numbers are compared.
        known[_key(model, spec)] = (applied, assigned), [*model.variables, *optimizers_of(model)]
    return applied, assigned


def _key(model: keras.Model, spec: str) -> tuple[Any, ...]:
    parts = (model.trainable_variables, model.non_trainable_variables, optimizers_of(model))
    return (spec, *(tuple(map(id, part)) for part in parts))


def _spec(tensor: Any) -> str:
    """Return the type of a tensor in a batch of any number of samples."""
    return f"{type(tensor).__name__} {getattr(tensor, 'dtype', '')} {getattr(tensor, 'shape', ())[1:]}"


def _trace(model: keras.Model, batch: Any) -> tuple[Applied, Assignments | None]:
    """Trace the model's train step, which may create weights that no call of the model creates.

    No optimizer changes anything meanwhile.

    Returns:
        The optimizers that it applies, and the variables that it assigns; nothing if it cannot be traced.

    Raises:
        Unsupported: It does something that the servers cannot do.
    """
    # Run eagerly, a step changes counters, metrics and moving statistics.
    before = [(variable, variable.value.numpy()) for variable in model.variables] if model.run_eagerly else []
    # An error here occurs again in `fit`, which raises it; a step that cannot be traced may still run.
    try:
        with recorded() as applied, recorded_assignments() as assigned:
            step = model.train_step if model.run_eagerly else tf.function(model.train_step).get_concrete_function
            step(batch)
            assigned.find_sums(applied.branches, _weights_and_layers(model))
    except Unsupported:  # before the worker joins the others
        raise
    except Exception:
        return {}, None
    finally:
        assigned.undo()
        for variable, value in before:
            variable.assign(value)
    return applied.found, assigned


def _weights_and_layers(model: keras.Model) -> list[Any]:
    """Return the variables of a model except those that a train step of its own has added to it."""
    layers = model._flatten_layers(include_self=False)
    of_layers = [variable for layer in layers for variable in layer.variables]
    return [*of_layers, *getattr(model, "_trainable_variables", ()), *model.metrics_variables]


def _tensor(array: Any) -> Any:
    """Return an array as the tensor that Keras passes to a train step."""
    if array is None or isinstance(array, tf.SparseTensor | tf.RaggedTensor):
        return array
    tensor = tf.convert_to_tensor(np.asarray(array) if hasattr(array, "iloc") else array)
    return tf.cast(tensor, keras.config.floatx()) if tensor.dtype.is_floating else tensor
