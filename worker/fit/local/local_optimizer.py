"""The optimizer of Keras that makes the local steps of one worker, with slots of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from downpour.worker.compute.norms import clip_together, exact_norm_of
from downpour.worker.fit.optimizer.assignments import Assignments
from downpour.worker.fit.optimizer.optimizer_slots import slots_of, write_derived
from downpour.worker.fit.optimizer.step_tensors import dense
from downpour.worker.fit.optimizer.whole_state import keep_slots, kept_slots_of, plain_copy


class LocalOptimizer:
    """A copy of a distributed optimizer, of Keras's own class, that makes local steps.

    Its `iterations` count this worker's steps, which corrections of bias depend on; its learning rate is always that of
    the distributed optimizer, whose `iterations` count the steps of all workers.

    Attributes:
        optimizer: The copy.
    """

    def __init__(self, distributed: Any, variables: Sequence[Any]) -> None:
        """Copy an optimizer with the slots that it has kept since the last call of `fit`.

        Args:
            distributed: The distributed optimizer.
            variables: The variables that it trains.
        """
        if not distributed.built:
            distributed.build(list(variables))
        self._distributed, self.optimizer = distributed, plain_copy(distributed)
        self._rate = keras.Variable(0.0, trainable=False, name="learning_rate")
        # Keras would track what is assigned to its attributes.
        object.__setattr__(self.optimizer, "_learning_rate", self._rate)
        object.__setattr__(self.optimizer, "loss_scale_factor", None)  # the distributed optimizer divides by it

    def begin_fit(self) -> None:
        """Continue with the slots and the count that the distributed optimizer has by now."""
        self.optimizer._iterations.assign(self._distributed._iterations)
        kept = kept_slots_of(self._distributed)
        if kept is not None:
            kept.write(self.optimizer)
        write_derived(self.optimizer, self._distributed)

    def step(
        self, gradients: Sequence[Any], variables: Sequence[Any], clip_norm: float, assignments: Assignments
    ) -> tf.Tensor:
        """Make a step in the graph of a train step, unless a gradient is not finite.

        Args:
            gradients: The gradients.
            variables: Their variables.
            clip_norm: The largest norm of all gradients; 0 if they are not clipped.
            assignments: The record of what the train step assigns, which does not include this step.

        Returns:
            The norm of the gradients before they are clipped.
        """
        given = [dense(gradient) for gradient in gradients]
        norm = exact_norm_of(given)
        if clip_norm:
            given = clip_together(given, clip_norm, norm)

        def make() -> tf.Tensor:
            with assignments.paused():
                self._rate.assign(tf.cast(self._distributed._get_current_learning_rate(), self._rate.dtype))
                self.optimizer.apply(given, list(variables))
            return tf.constant(True)

        tf.cond(tf.math.is_finite(norm), make, lambda: tf.constant(False))
        return norm

    def keep_slots(self) -> None:
        """Keep the slots in the distributed optimizer."""
        keep_slots(self._distributed, slots_of(self.optimizer))
