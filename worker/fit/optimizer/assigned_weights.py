"""The values that a train step or a batch hook assigns to variables of the layout itself, besides the optimizers.

An assigned value replaces the one on the servers, element by element where it differs from the weights that were pulled
last: the newest assignment of any worker holds. Clipping, a moving average and a copied network stay within the values
that a worker has assigned, which the sum of several workers' differences would not.
"""

from __future__ import annotations

import functools
from collections.abc import Container, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from downpour.protos.errors import Unsupported
from downpour.protos.layout import Layout
from downpour.worker.fit.cluster.script_worker import ScriptWorker
from downpour.worker.fit.optimizer.assignments import Assignments


class AssignedWeights:
    """The assigned values of one model on one worker, during one call of `fit`.

    Attributes:
        assignments: The assignments of the current train step, recorded while it is traced or run eagerly.
        refused_with: The setting with which a train step may assign none of the variables; empty if it may.
    """

    def __init__(self, variables: Sequence[Any], replaced: Container[int], layout: Layout, member: ScriptWorker):
        """Observe the assignments to the variables of a layout.

        Args:
            variables: The variables of the layout.
            replaced: The places of those whose assigned value replaces the one on the servers; differences of the
                others are added, with the gradient.
            layout: The layout.
            member: This worker.
        """
        self.assignments, self.refused_with = Assignments(), ""
        self._variables, self._replaced, self._layout, self._member = variables, replaced, layout, member
        self._starts = np.cumsum([0, *(tensor.size for tensor in layout.tensors)])
        self._active = False  # the train step assigns such variables
        self._pulled = np.empty(0, np.float32)

    def begin_batch(self, assignments: Assignments) -> None:
        """Begin a train step whose assignments are recorded."""
        self.assignments = assignments

    def pulled(self, flat: np.ndarray) -> None:
        """Record the weights `float32[n + m]` that the model holds now; they are copied if they are needed."""
        if self._active:
            self._pulled = flat.copy()

    def written(self, flat: np.ndarray) -> None:
        """Record the weights that the model holds when an epoch begins; they must not change."""
        self._pulled = flat

    def send_in_graph(self) -> None:
        """Send, at this place of a train step, what it has assigned so far."""
        places = self._places(self.assignments)
        if places:
            self.check(self.assignments)
            self._active = True
            values = [tf.reshape(tf.cast(self._variables[place].value, tf.float32), [-1]) for place in places]
            tf.numpy_function(functools.partial(self._send, places), [tf.concat(values, 0)], [])

    def _places(self, assignments: Assignments) -> list[int]:
        return [place for place, v in enumerate(self._variables) if place in self._replaced and v in assignments]

    def refuse(self, setting: str) -> None:
        """Refuse train steps that assign any of the variables, because of a setting of the job."""
        self.refused_with = setting

    def check(self, assignments: Assignments) -> None:
        """Raise Unsupported if a train step with these assignments assigns what it may not."""
        if self.refused_with and (places := self._places(assignments)):
            raise self.refusal([self._variables[place].path for place in places])

    def refusal(self, names: Sequence[str]) -> Unsupported:
        """Return the error of a train step that assigns the variables with these names."""
        return Unsupported(
            f"with {self.refused_with} a weight must be changed by the optimizer alone, because the changes of several "
            f"workers are added. Received: {', '.join(names[:3])}, which the train step assigns. Omit the setting."
        )

    def _send(self, places: Sequence[int], values: np.ndarray) -> None:
        vector, at = np.full(self._layout.size, np.nan, np.float32), 0
        for place in places:
            whole = self._part(place)
            dtype, size = tf.as_dtype(self._variables[place].dtype).as_numpy_dtype, whole.stop - whole.start
            expected = self._pulled[whole].astype(dtype).astype(np.float32)  # as the model holds it
            mine, at = values[at : at + size], at + size
            vector[whole] = np.where(mine == expected, np.nan, mine)
        self._assign(vector)

    def send(self, variables: Container[Any]) -> np.ndarray | None:
        """Send the present values of some variables, which a callback has assigned.

        Returns:
            The vector `float32[n + m]` that was sent, with NaN for all other elements; None if there are no variables
            of the layout among them.
        """
        places = [place for place, variable in enumerate(self._variables) if variable in variables]
        if not places:
            return None
        vector = np.full(self._layout.size, np.nan, np.float32)
        for place in places:
            vector[self._part(place)] = np.asarray(self._variables[place].value, np.float32).ravel()
        self._assign(vector)
        return vector

    def _assign(self, vector: np.ndarray) -> None:
        unchanged = np.isnan(vector)
        if not unchanged.all():
            self._member.assign(vector, partial=True)
            if len(self._pulled):
                self._pulled = np.where(unchanged, self._pulled, vector)

    def _part(self, place: int) -> slice:
        return slice(int(self._starts[place]), int(self._starts[place + 1]))
