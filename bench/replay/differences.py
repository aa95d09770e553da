"""Compares a replay with its record: the norm and loss of every push, and its outcome."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from downpour.ps.core.push import Push, Result
from downpour.ps.trace.format import REASONS

Name = tuple[int, int, int]  # worker, incarnation, seq


@dataclass(frozen=True)
class Computed:
    """A push that was computed again.

    Attributes:
        vector: The gradient `float32[n + m]`; must not be modified.
        norm: The norm of the gradient.
        loss: The mean loss.
        samples: The number of samples.
        steps: The number of local steps.
        finite: Whether the gradient is finite.
    """

    vector: np.ndarray
    norm: float
    loss: float
    samples: int
    steps: int = 1
    finite: bool = True


@dataclass
class Differences:
    """The differences between a replay and its record.

    Attributes:
        first: The description of the first difference; empty if there is none.
        values: The number of pushes with another norm or loss, caused by different arithmetic.
        outcomes: The number of other outcomes, which arithmetic does not explain.
    """

    first: str = ""
    values: int = 0
    outcomes: int = 0

    def compare_gradient(self, name: Name, record: np.void, computed: Computed) -> None:
        """Compare the norm, loss and samples of a push with the record of shard 0."""
        for what, found in (("norm", computed.norm), ("loss", computed.loss), ("samples", computed.samples)):
            was = record[what].item()
            if found == was or (np.isnan(found) and np.isnan(was)):
                continue
            self.values += 1
            self.first = self.first or (
                f"the {what} of {push_text(name)} (epoch {record['epoch']}, positions {record['start']} to "
                f"{record['stop']}, from version {record['base_version']}) is {was!r} in the record and {found!r} in "
                "the replay"
            )
            return

    def compare_outcome(self, where: str, record: np.void | None, push: Push, result: Result) -> None:
        """Compare an outcome with the record at the same place of the trace, or None if the trace has ended."""
        name = (push.worker, push.incarnation, push.seq)
        if record is None:
            self.outcomes += 1
            self.first = self.first or f"{where} is of {push_text(name)}; the trace ends before it"
            return
        done: dict[str, int | float] = {
            "worker": push.worker,
            "incarnation": push.incarnation,
            "seq": push.seq,
            "outcome": int(result.outcome),
            "version": result.version,
            "staleness": result.staleness,
            "learning_rate": result.learning_rate,
            "reason": REASONS.index(result.reason),
        }
        differing = [
            f"{key} {record[key]}, in the replay {value}" for key, value in done.items() if record[key] != value
        ]
        if differing:
            self.outcomes += 1
            self.first = self.first or f"{where} ({push_text(name)}): {'; '.join(differing)}"

    def missing(self, where: str, name: Name) -> None:
        """Count a record of a push that the replay does not contain."""
        self.outcomes += 1
        self.first = self.first or f"{where} is of {push_text(name)}; there is no such call"


def push_text(name: Name) -> str:
    """Return a description of a push for messages."""
    return f"push {name[2]} of worker {name[0]}, incarnation {name[1]}"
