"""The worker: pulls weights, computes gradients with TensorFlow, pushes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worker.leased import LeasedDataset
    from worker.optimizer import DistributedOptimizer

__all__ = ["DistributedOptimizer", "LeasedDataset"]


def __getattr__(name: str) -> Any:
    """Loads TensorFlow only for whoever asks for what needs it."""
    if name == "DistributedOptimizer":
        from worker.optimizer import DistributedOptimizer

        return DistributedOptimizer
    if name == "LeasedDataset":
        from worker.leased import LeasedDataset

        return LeasedDataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
