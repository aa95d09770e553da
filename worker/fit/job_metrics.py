"""A callback that adds the workers and the staleness of the job to the logs of each epoch."""

from __future__ import annotations

from typing import Any

import keras

from downpour.protos.errors import DownpourError
from downpour.worker import script


class JobMetrics(keras.callbacks.Callback):
    """A callback that adds `workers` and `staleness` to the logs of each epoch, for the callbacks after it.

    A tracker such as TensorBoard, Weights & Biases or MLflow then logs them with the metrics of the model. `workers` is
    the number of live workers, and `staleness` the mean of all updates so far. In a script that was not started with
    `downpour run` they are 1 and 0.

        model.fit(x, y, callbacks=[JobMetrics(), keras.callbacks.TensorBoard("logs")])
    """

    only_on_leader = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Add the values to the logs of an epoch; an epoch in which the server does not answer has none.

        Args:
            epoch: The number of the epoch, from 0.
            logs: The logs of the epoch, which are changed.
        """
        if logs is None:
            return
        if script.member is None:
            logs.update(workers=1.0, staleness=0.0)
            return
        try:
            progress = script.member.progress()
        except DownpourError:
            return
        logs.update(workers=float(len(progress.workers)), staleness=float(progress.staleness_mean))
