"""A Keras model as a pure function from one flat vector of weights to outputs or gradients.

The vector holds the n weights that gradients train, then the m elements of floating-point state that a training step
changes, such as moving statistics. Frozen weights are not part of it: no step changes them, so that every worker keeps
them in its model, which evaluations and the saved model use; `data_checksum` proves that all workers have the
same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import keras
import numpy as np
import tensorflow as tf

from downpour.protos.layout import STATE, TRAINED, Layout, Tensor
from downpour.worker.catalog.datasets import Dataset

DRAWS_PER_STEP = 1 << 16  # the most that one seed generator draws; the seeds of local steps differ by this


def layout_of(model: keras.Model) -> Layout:
    """Return the model's layout: trained weights, then floating-point state; each in Keras's order."""
    trained = [(v.path, tuple(v.shape), TRAINED) for v in model.trainable_variables]
    state = [(v.path, tuple(v.shape), STATE) for v in _state(model)]
    return Layout.of(trained + state)


def read_weights(model: keras.Model) -> np.ndarray:
    """Return the model's trained weights and its state as one flat vector `float32[n + m]`."""
    variables = [*model.trainable_variables, *_state(model)]
    return np.concatenate([np.asarray(v.value, np.float32).ravel() for v in variables])


def write_weights(model: keras.Model, flat: np.ndarray) -> None:
    """Assign a flat vector `float32[n + m]` to the model's trained weights and its state."""
    views = layout_of(model).views(flat)
    for variable in [*model.trainable_variables, *_state(model)]:
        variable.assign(views[variable.path])


def frozen_weights(model: keras.Model) -> list[keras.Variable]:
    """Return the weights of layers that are not trained, in Keras's order."""
    frozen = _frozen_ids(model)
    return [variable for variable in model.non_trainable_variables if id(variable) in frozen]


def data_checksum(dataset: Dataset, model: keras.Model) -> str:
    """Return a checksum of what must be the same on all workers and is never sent.

    It covers the data, a factor on the samples that a user has chosen, and the frozen weights. Without the last two it
    is the dataset's own.

    Args:
        dataset: The dataset.
        model: The model, built, with its initial weights.
    """
    frozen = frozen_weights(model)
    if not frozen and dataset.given_scale is None:
        return dataset.checksum
    digest = sha256(dataset.checksum.encode())
    if dataset.given_scale is not None:
        digest.update(repr(dataset.scale).encode())
    for variable in frozen:
        digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return digest.hexdigest()


def seed_words(numbers: Sequence[int], step: int) -> np.ndarray:
    """Return the summand for the model's own seeds in one step, `int64[2]`.

    Args:
        numbers: The seed of the job, the worker and the sequence number, which identify the push.
        step: The number of the local step within the push, from 0.
    """
    return np.random.SeedSequence(numbers).generate_state(2) + np.array([0, step * DRAWS_PER_STEP], np.int64)


def correct_of(y: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """Return the number of samples whose largest output is their class; 0 unless the model is a classifier."""
    if outputs.shape.rank != 2 or y.shape.rank != 1 or y.dtype.is_floating:
        return tf.constant(0.0)
    if outputs.shape[1] == 1:  # one output for two classes
        return tf.reduce_sum(tf.cast(tf.equal(outputs[:, 0] > 0.5, y > 0), tf.float32))
    hits = tf.equal(tf.argmax(outputs, -1, output_type=tf.int32), tf.cast(y, tf.int32))
    return tf.reduce_sum(tf.cast(hits, tf.float32))


@dataclass(frozen=True)
class Backward:
    """The tensors that one forward and one backward pass compute.

    Attributes:
        gradients: The gradient of every trained tensor, in its shape.
        state: The new values of the state's tensors.
        loss: The mean loss of the samples.
        correct: The number of samples whose largest output is their class.
    """

    gradients: list[tf.Tensor]
    state: list[tf.Tensor]
    loss: tf.Tensor
    correct: tf.Tensor


class FlatModel:
    """Forward and backward passes of a model at given weights. Of its own weights, only the frozen ones are used.

    State that is not floating-point remains in the model: seeds are computed from those that the caller passes, other
    integers are kept and updated in the model's variables.

    Attributes:
        layout: The layout of the flat vector.
        random: Whether a pass draws random numbers.
        seeds: The initial seeds of its generators, `int64[2]` each, on which random numbers depend as well.
        model: The Keras model.
    """

    def __init__(self, model: keras.Model, seeds: Sequence[np.ndarray] | None = None) -> None:
        """Flatten the variables of a built model.

        Args:
            model: A model that is built.
            seeds: The initial seeds of its generators, `int64[2]` each (default: those that it was built with).
        """
        self.layout = layout_of(model)
        self.random = any(_is_seed(v) for v in model.non_trainable_variables)
        self.model = model
        self._state = {id(variable) for variable in _state(model)}
        self._frozen = _frozen_ids(model)
        self._loss = keras.losses.get(model.loss or "sparse_categorical_crossentropy")
        own = [np.asarray(v.value) for v in model.non_trainable_variables if _is_seed(v)]
        self.seeds = own if seeds is None else list(seeds)
        self._trained = sum(tensor.section == TRAINED for tensor in self.layout.tensors)

    def pieces(self, flat: tf.Tensor) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Return the tensors of the trained weights and those of the state that a flat vector contains."""
        cut = _cut(flat, self.layout.tensors)
        return cut[: self._trained], cut[self._trained :]

    def losses(self, y: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Return the mean loss without terms that layers add, such as regularization."""
        if y.shape.rank == 1 and outputs.shape.rank == 2 and outputs.shape[-1] == 1:
            y = y[:, None]  # as Keras's compiled loss does; its bare loss functions do not
        return tf.reduce_mean(self._loss(y, outputs))

    def outputs(self, flat: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """Return the outputs of the model in inference."""
        weights, state = self.pieces(flat)
        return self._call(weights, state, x, training=False, seed=None)[0]

    def backward(
        self, weights: list[tf.Tensor], state: list[tf.Tensor], x: tf.Tensor, y: tf.Tensor, seed: tf.Tensor | None
    ) -> Backward:
        """Return loss, gradients and the new state of one batch.

        Args:
            weights: The trained tensors.
            state: The tensors of the state.
            x: The scaled samples.
            y: The targets.
            seed: `int64[2]` from `seed_words`; required if the model draws random numbers.
        """
        with tf.GradientTape() as tape:
            tape.watch(weights)
            outputs, new_state, own = self._call(weights, state, x, training=True, seed=seed)
            loss = tf.add_n([self.losses(y, outputs), *own])
        gradients = tape.gradient(loss, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return Backward([tf.convert_to_tensor(g) for g in gradients], new_state, loss, correct_of(y, outputs))

    def _call(
        self, weights: list[tf.Tensor], state: list[tf.Tensor], x: tf.Tensor, training: bool, seed: tf.Tensor | None
    ) -> tuple[tf.Tensor, list[tf.Tensor], list[tf.Tensor]]:
        """Return the outputs, the new state, and the losses that layers add."""
        floats, seeds = iter(state), iter(self.seeds)
        variables, given = self.model.non_trainable_variables, []
        for variable in variables:
            if id(variable) in self._state:
                given.append(next(floats))
            elif _is_seed(variable):
                own = next(seeds)
                given.append(variable.value if seed is None else own + tf.cast(seed, own.dtype))
            else:
                given.append(variable.value)
        outputs, updated, own_losses = self.model.stateless_call(
            weights, given, x, training=training, return_losses=True
        )
        pairs = list(zip(updated, variables, strict=True))
        if training:
            for new, variable in pairs:
                if id(variable) not in self._state | self._frozen and not _is_seed(variable):
                    variable.value.assign(new)
        return outputs, [tf.convert_to_tensor(new) for new, v in pairs if id(v) in self._state], own_losses


def flattened(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Return each tensor as a vector."""
    return [tf.reshape(tensor, [-1]) for tensor in tensors]


def _cut(flat: tf.Tensor, tensors: Sequence[Tensor]) -> list[tf.Tensor]:
    # Gradients are computed for the slices: the gradient of the slicing itself would need one padded vector per
    # slice. Each slice is cut from the whole vector; it is not copied if it begins and ends at a multiple of 64 bytes.
    ends = np.cumsum([t.size for t in tensors])
    return [tf.reshape(flat[end - t.size : end], t.shape) for t, end in zip(tensors, ends, strict=True)]


def _frozen_ids(model: keras.Model) -> set[int]:
    """Return the `id`s of frozen weights: Keras counts them, like the state, among the non-trainable variables."""
    weights = {id(v) for layer in model._flatten_layers() for v in getattr(layer, "_trainable_variables", ())}
    return weights - {id(v) for v in model.trainable_variables}


def _is_seed(variable: keras.Variable) -> bool:
    return str(variable.path).endswith("seed_generator_state") and tuple(variable.shape) == (2,)


def _state(model: keras.Model) -> list[keras.Variable]:
    frozen = _frozen_ids(model)
    variables = [variable for variable in model.non_trainable_variables if id(variable) not in frozen]
    return [variable for variable in variables if tf.as_dtype(variable.dtype).is_floating]
