"""Detection of divergence during training: compares the loss of the newest samples with that of the first.

This module is pure: it does no I/O and reads no clock.
"""

from __future__ import annotations

from downpour.protos.sentences.sentence import sentence
from downpour.ps.trace.metrics import FAR_ABOVE, LOW, Metrics

FEWEST_UPDATES = 50  # number of updates that a mean loss averages over
LATE_UPDATES = 100  # with more before the first call, the initial weights' loss is the better reference
RISE = 2.0


class LossWatch:
    """Warns once that the training loss has risen, as it does before NaN if the learning rate is too large."""

    def __init__(self, metrics: Metrics) -> None:
        """Watch the metrics of shard 0."""
        self._metrics = metrics
        self._first: float | None = None
        self._updates = self._samples = 0
        self._loss = 0.0
        self._warned = False
        self._since = 0  # the epoch of the first samples

    def look(self) -> str:
        """Return a warning for the user, or an empty string. The method must be called regularly."""
        metrics = self._metrics
        if metrics.since != self._since:
            self._begin_fit()
        if self._warned or metrics.updates < self._updates + FEWEST_UPDATES:
            return ""
        samples = sum(epoch.samples for epoch in metrics.epochs.values())
        loss = sum(epoch.loss_sum for epoch in metrics.epochs.values())
        mean = (loss - self._loss) / (samples - self._samples) if samples > self._samples else None
        self._updates, self._samples, self._loss = metrics.updates, samples, loss
        if mean is None:
            return ""
        if self._first is None:
            self._first = self._reference(mean)
        if not (self._first > 0 and RISE * max(self._first, LOW) < mean):
            return ""
        self._warned = True
        return sentence("loss_risen", first=f"{self._first:.3g}", mean=f"{mean:.3g}")

    def _reference(self, mean: float) -> float:
        # The loss may already have risen among the first samples: within a few updates at a rate that is far too large,
        # or because a busy server calls this late. The initial loss is the mean of few samples and thus uncertain.
        initial = self._metrics.initial
        late = self._metrics.updates >= LATE_UPDATES
        if initial.samples and (late or mean > FAR_ABOVE * max(abs(initial.loss), LOW)):
            return min(mean, initial.loss)
        return mean

    def _begin_fit(self) -> None:
        """Ignore the losses of earlier calls of `fit`."""
        metrics, self._first = self._metrics, None
        self._since, self._updates = metrics.since, metrics.updates
        past = [epoch for number, epoch in metrics.epochs.items() if number < metrics.since]
        self._samples, self._loss = sum(e.samples for e in past), sum(e.loss_sum for e in past)
