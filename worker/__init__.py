"""The worker: pulls weights, computes gradients with TensorFlow, pushes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worker.optimizer import DistributedOptimizer

__all__ = ["DistributedOptimizer"]


def __getattr__(name: str) -> Any:
    """Loads TensorFlow only for whoever asks for what needs it."""
    if name == "DistributedOptimizer":
        from worker.optimizer import DistributedOptimizer

        return DistributedOptimizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
