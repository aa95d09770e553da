"""Where a replay differs from its record: norms and losses as they are computed, outcomes as they are reached."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from downpour.ps.core.push import Push, Result
from downpour.ps.trace.format import REASONS

Name = tuple[int, int, int]  # worker, incarnation, seq


@dataclass(frozen=True)
class Computed:
    """A push, computed again.

    Attributes:
        vector: `float32[n + m]`; not to be written to.
        samples: That it averages over.
        steps: Local steps that it sums up.
    """

    vector: np.ndarray
    norm: float
    loss: float
    samples: int
    steps: int = 1
    finite: bool = True


@dataclass
class Differences:
    """What differs.

    Attributes:
        first: In words; empty while there is nothing.
        values: Pushes with another norm or loss: other arithmetic.
        outcomes: Other outcomes, which no arithmetic explains.
    """

    first: str = ""
    values: int = 0
    outcomes: int = 0

    def computed(self, name: Name, record: np.void, computed: Computed) -> None:
        """Compares a push with shard 0's record of it: norm and loss tell at once whether it is the same gradient."""
        for what, found in (("norm", computed.norm), ("loss", computed.loss), ("samples", computed.samples)):
            was = record[what].item()
            if found == was or (np.isnan(found) and np.isnan(was)):
                continue
            self.values += 1
            self.first = self.first or (
                f"the {what} of {who(name)} (epoch {record['epoch']}, positions {record['start']} to {record['stop']}, "
                f"from version {record['base_version']}) is {was!r} in the record and {found!r} done again"
            )
            return

    def concluded(self, where: str, record: np.void | None, push: Push, result: Result) -> None:
        """Compares an outcome with the record that stands in its place; None if there is none."""
        name = (push.worker, push.incarnation, push.seq)
        if record is None:
            self.outcomes += 1
            self.first = self.first or f"{where} is of {who(name)}; the trace ends before it"
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
        differing = [f"{key} {record[key]}, done again {value}" for key, value in done.items() if record[key] != value]
        if differing:
            self.outcomes += 1
            self.first = self.first or f"{where} ({who(name)}): {'; '.join(differing)}"

    def missing(self, where: str, name: Name) -> None:
        """Notes a record of a push that has not been done again."""
        self.outcomes += 1
        self.first = self.first or f"{where} is of {who(name)}; there is no such call"


def who(name: Name) -> str:
    """A push in words."""
    return f"push {name[2]} of worker {name[0]}, incarnation {name[1]}"
