"""Puts servers and workers on machines: the command line, the plan, the launchers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deploy.notebook import FitFailed, FitHistory, LocalCluster

__all__ = ["FitFailed", "FitHistory", "LocalCluster"]


def __getattr__(name: str) -> Any:
    """Loads the launcher only for whoever asks for it."""
    if name in __all__:
        import deploy.notebook

        return getattr(deploy.notebook, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
