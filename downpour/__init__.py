"""downpour: an asynchronous parameter server for Keras 3 on TensorFlow.

This module is the public API, which `docs/api.md` describes; every other module of the package is private and may
change without notice. Importing it loads neither TensorFlow nor gRPC: each name is loaded when it is first used.

    import keras
    from downpour import DistributedOptimizer

    model.compile(optimizer=DistributedOptimizer(keras.optimizers.Adam(0.001)), loss="mse")
    model.fit(x, y, epochs=5)

`python train.py` trains this in one process, `downpour run --workers 4 train.py` in four.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from downpour.deploy.scripts.local_cluster import FitFailed, FitHistory, LocalCluster
    from downpour.worker.fit.data.leased_dataset import LeasedDataset
    from downpour.worker.fit.job_metrics import JobMetrics
    from downpour.worker.fit.optimizer.distributed_optimizer import DistributedOptimizer
    from downpour.worker.loops.connect import connect
    from downpour.worker.loops.numpy_client import NumpyClient, PushReply
    from downpour.worker.loops.training import training
    from downpour.worker.loops.training_job import TrainingJob
    from downpour.worker.script import rank, size

_MODULES = {
    "DistributedOptimizer": "downpour.worker.fit.optimizer.distributed_optimizer",
    "FitFailed": "downpour.deploy.scripts.local_cluster",
    "FitHistory": "downpour.deploy.scripts.local_cluster",
    "JobMetrics": "downpour.worker.fit.job_metrics",
    "LeasedDataset": "downpour.worker.fit.data.leased_dataset",
    "LocalCluster": "downpour.deploy.scripts.local_cluster",
    "NumpyClient": "downpour.worker.loops.numpy_client",
    "PushReply": "downpour.worker.loops.numpy_client",
    "connect": "downpour.worker.loops.connect",
    "TrainingJob": "downpour.worker.loops.training_job",
    "rank": "downpour.worker.script",
    "size": "downpour.worker.script",
    "training": "downpour.worker.loops.training",
}

__all__ = [
    "DistributedOptimizer",
    "FitFailed",
    "FitHistory",
    "JobMetrics",
    "LeasedDataset",
    "LocalCluster",
    "NumpyClient",
    "PushReply",
    "TrainingJob",
    "connect",
    "rank",
    "size",
    "training",
]


def __getattr__(name: str) -> Any:
    """Load a public name from the module that defines it."""
    if name == "ray":
        return importlib.import_module("downpour.ray")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(_MODULES[name]), name)
    except ModuleNotFoundError as error:
        if error.name not in ("keras", "tensorflow"):
            raise
        from downpour.protos.system.command import install_command

        raise ModuleNotFoundError(
            f"downpour.{name} needs Keras and TensorFlow; {error.name} is not installed. "
            f"Install them: {install_command('worker')}",
            name=error.name,
        ) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
