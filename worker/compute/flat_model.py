"""A Keras model as a pure function of one flat vector: weights in, outputs or gradients out.

The vector holds the n weights that gradients train, then the m numbers of floating-point state that a training step
moves on, such as moving statistics. Frozen weights are not part of it: no step changes them, so that every worker keeps
them in its model, where evaluations and the saved model find them; `data_checksum` proves that all workers have the
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

DRAWS_PER_STEP = 1 << 16  # of one seed generator, at most: the local steps of a push have these apart


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


def data_checksum(checksum: str, model: keras.Model) -> str:
    """Return a checksum of what must be the same on all workers and is neither pushed nor pulled.

    Args:
        checksum: SHA-256 (hex) of the data; it is the result, too, for a model without frozen weights.
        model: Built, with the weights that training begins with.
    """
    frozen = frozen_weights(model)
    if not frozen:
        return checksum
    digest = sha256(checksum.encode())
    for variable in frozen:
        digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return digest.hexdigest()


def seed_words(numbers: Sequence[int], step: int) -> np.ndarray:
    """Return what to add to the model's own seeds, `int64[2]`.

    Args:
        numbers: What identifies the push: the job's seed, the worker, the push's seq.
        step: Of the push's local steps, from 0.
    """
    return np.random.SeedSequence(numbers).generate_state(2) + np.array([0, step * DRAWS_PER_STEP], np.int64)


def correct_of(y: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """How many samples have their largest output at their class; 0 where outputs are no classes."""
    if outputs.shape.rank != 2 or y.shape.rank != 1 or y.dtype.is_floating:
        return tf.constant(0.0)
    if outputs.shape[1] == 1:  # one output for two classes
        return tf.reduce_sum(tf.cast(tf.equal(outputs[:, 0] > 0.5, y > 0), tf.float32))
    hits = tf.equal(tf.argmax(outputs, -1, output_type=tf.int32), tf.cast(y, tf.int32))
    return tf.reduce_sum(tf.cast(hits, tf.float32))


@dataclass(frozen=True)
class Backward:
    """One forward and one backward pass, in tensors.

    Attributes:
        gradients: Of the trained tensors, each in its shape.
        state: The new values of the state's tensors.
        loss: Mean over the samples.
        correct: Samples whose largest output is their class.
    """

    gradients: list[tf.Tensor]
    state: list[tf.Tensor]
    loss: tf.Tensor
    correct: tf.Tensor


class FlatModel:
    """Passes through a model at any weights; of the model's own weights, only the frozen ones are used.

    State that is not floating-point stays in the model: seeds are drawn anew from what the caller names, other
    integers live in its variables and are updated there.

    Attributes:
        layout: Of the flat vector.
        random: Whether a pass draws random numbers.
        seeds: Of its generators, each `int64[2]`, as it was built: what is drawn depends on them too.
        model: The Keras model.
    """

    def __init__(self, model: keras.Model) -> None:
        """Wrap a built model."""
        self.layout = layout_of(model)
        self.random = any(_is_seed(v) for v in model.non_trainable_variables)
        self.model = model
        self._state = {id(variable) for variable in _state(model)}
        self._frozen = _frozen_ids(model)
        self._loss = keras.losses.get(model.loss or "sparse_categorical_crossentropy")
        self.seeds = [np.asarray(v.value) for v in model.non_trainable_variables if _is_seed(v)]
        self._trained = sum(tensor.section == TRAINED for tensor in self.layout.tensors)

    def pieces(self, flat: tf.Tensor) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """The tensors of trained weights and of state, in their shapes, that a flat vector holds."""
        cut = _cut(flat, self.layout.tensors)
        return cut[: self._trained], cut[self._trained :]

    def losses(self, y: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """The mean loss, without the model's own terms."""
        if y.shape.rank == 1 and outputs.shape.rank == 2 and outputs.shape[-1] == 1:
            y = y[:, None]  # as Keras's compiled loss does; its bare loss functions do not
        return tf.reduce_mean(self._loss(y, outputs))

    def outputs(self, flat: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """The model's outputs in inference."""
        weights, state = self.pieces(flat)
        return self._call(weights, state, x, training=False, seed=None)[0]

    def backward(
        self, weights: list[tf.Tensor], state: list[tf.Tensor], x: tf.Tensor, y: tf.Tensor, seed: tf.Tensor | None
    ) -> Backward:
        """Loss and gradients.

        Args:
            weights: The trained tensors.
            state: The tensors of the state.
            x: Samples, as the model takes them.
            y: Their classes.
            seed: `int64[2]` from `seed_words`; needed by a model that draws random numbers.
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
        """Outputs, new state and the model's own losses."""
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
    """Each tensor as a vector."""
    return [tf.reshape(tensor, [-1]) for tensor in tensors]


def _cut(flat: tf.Tensor, tensors: Sequence[Tensor]) -> list[tf.Tensor]:
    # Gradients are taken of the slices, so that the slicing itself has no gradient, which would be as many
    # padded vectors. Each is cut from the whole: what begins and ends at a multiple of 64 bytes is not copied then.
    ends = np.cumsum([t.size for t in tensors])
    return [tf.reshape(flat[end - t.size : end], t.shape) for t, end in zip(tensors, ends, strict=True)]


def _frozen_ids(model: keras.Model) -> set[int]:
    """Return the `id`s of frozen weights: Keras counts them among the non-trainable variables, beside the state."""
    weights = {id(v) for layer in model._flatten_layers() for v in getattr(layer, "_trainable_variables", ())}
    return weights - {id(v) for v in model.trainable_variables}


def _is_seed(variable: keras.Variable) -> bool:
    return str(variable.path).endswith("seed_generator_state") and tuple(variable.shape) == (2,)


def _state(model: keras.Model) -> list[keras.Variable]:
    frozen = _frozen_ids(model)
    variables = [variable for variable in model.non_trainable_variables if id(variable) not in frozen]
    return [variable for variable in variables if tf.as_dtype(variable.dtype).is_floating]
