"""The learning-rate table of a script, which its worker 0 replaces while the job runs."""

from __future__ import annotations

import math

import numpy as np

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest


class RateTable:
    """A replaceable schedule: η at some versions, with linear interpolation between them."""

    def __init__(self, base: float, rates: pb.LearningRates) -> None:
        """Create a schedule from a table that `check_rates` has accepted.

        Args:
            base: The optimizer's own learning rate, which factors refer to.
            rates: The table.
        """
        self._base = base
        self.replace(rates)

    def replace(self, rates: pb.LearningRates) -> None:
        """Replace the table."""
        self._versions = np.array(rates.versions, np.float64)
        self._factors = np.array(rates.rates, np.float64) / self._base

    def __call__(self, version: int) -> float:
        """Return the factor on the optimizer's learning rate at a version."""
        return float(np.interp(version, self._versions, self._factors))


def check_rates(rates: pb.LearningRates) -> None:
    """Raise InvalidRequest unless the table is valid."""
    versions, values = list(rates.versions), list(rates.rates)
    ascending = all(a < b for a, b in zip(versions, versions[1:], strict=False))
    if not versions or len(versions) != len(values) or not ascending:
        raise InvalidRequest(
            "learning rates must come with as many ascending versions, one or more; received "
            f"{len(versions)} versions and {len(values)} rates."
        )
    if not all(math.isfinite(value) and value >= 0 for value in values):
        raise InvalidRequest(f"learning rates must be finite and at least 0; received {min(values)} to {max(values)}.")
