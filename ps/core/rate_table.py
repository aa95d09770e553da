"""The learning rate by version as a script's worker says it: replaced while the job runs."""

from __future__ import annotations

import math

import numpy as np

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest


class RateTable:
    """A schedule that can be told anew: η at some versions, on straight lines between them."""

    def __init__(self, base: float, rates: pb.LearningRates) -> None:
        """Takes a table that `check_rates` has passed.

        Args:
            base: The optimizer's own learning rate, which a schedule gives factors on.
            rates: The table.
        """
        self._base = base
        self.tell(rates)

    def tell(self, rates: pb.LearningRates) -> None:
        """From now on this table holds."""
        self._versions = np.array(rates.versions, np.float64)
        self._factors = np.array(rates.rates, np.float64) / self._base

    def __call__(self, version: int) -> float:
        """The factor on the optimizer's learning rate at a version."""
        return float(np.interp(version, self._versions, self._factors))


def check_rates(rates: pb.LearningRates) -> None:
    """Raises InvalidRequest unless the table is one."""
    versions, values = list(rates.versions), list(rates.rates)
    ascending = all(a < b for a, b in zip(versions, versions[1:], strict=False))
    if not versions or len(versions) != len(values) or not ascending:
        raise InvalidRequest(
            "learning rates must come with as many ascending versions, one or more; received "
            f"{len(versions)} versions and {len(values)} rates."
        )
    if not all(math.isfinite(value) and value >= 0 for value in values):
        raise InvalidRequest(f"learning rates must be finite and at least 0; received {min(values)} to {max(values)}.")
