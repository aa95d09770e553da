"""Trackers of experiments log a run once: what another worker than worker 0 logs is discarded.

Every worker runs the whole script, which starts a run of its tracker. In the processes of the other workers, Weights &
Biases is disabled, and MLflow writes into a folder that is removed with the process. A script may read what it has
logged to MLflow, so that the callback that logs runs on every worker.
"""

from __future__ import annotations

import atexit
import functools
import importlib.abc
import importlib.machinery
import importlib.util
import os
import shutil
import sys
import tempfile
import types
from collections.abc import Callable, Sequence
from typing import Any

TRACKERS = ("mlflow", "wandb")  # packages whose callbacks write


def writes_to_tracker(callback: object) -> bool:
    """Return whether a callback is one of a tracker, or inherits from one, and must run on worker 0 alone."""
    kinds = [kind for kind in type(callback).__mro__ if kind.__module__.partition(".")[0] in TRACKERS]
    return bool(kinds) and not any(kind.__name__ == "MlflowCallback" for kind in kinds)


def discard_tracking() -> None:
    """Make trackers that this process imports from now on log nothing that remains."""
    for name, silence in (("wandb", _silence_wandb), ("mlflow", _silence_mlflow)):
        if name in sys.modules:
            silence(sys.modules[name])
        else:
            sys.meta_path.insert(0, _AfterImport(name, silence))


class _AfterImport(importlib.abc.MetaPathFinder):
    """Calls a function with a module when it has been imported for the first time."""

    def __init__(self, name: str, then: Callable[[types.ModuleType], None]) -> None:
        self._name, self._then, self._looking = name, then, False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name or self._looking:
            return None
        self._looking = True  # by the other finders
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._looking = False
        if spec is None or spec.loader is None:
            return spec
        own = spec.loader.exec_module

        def exec_module(module: types.ModuleType) -> None:
            own(module)
            self._then(module)
            sys.meta_path.remove(self)

        setattr(spec.loader, "exec_module", exec_module)  # noqa: B010
        return spec


def _silence_wandb(wandb: Any) -> None:
    own = wandb.init

    @functools.wraps(own)
    def init(*args: Any, **kwargs: Any) -> Any:
        return own(*args, **{**kwargs, "mode": "disabled"})

    setattr(wandb, "init", init)  # noqa: B010 (a function of another package is replaced)


def _silence_mlflow(mlflow: Any) -> None:
    folder = tempfile.mkdtemp(prefix="downpour-mlflow-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if all(map(importlib.util.find_spec, ("sqlalchemy", "alembic"))):
        os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = os.path.join(folder, "artifacts")
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")  # files would keep metrics twice, in any order
    else:
        os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"  # newer versions ask for a database otherwise
        mlflow.set_tracking_uri(f"file:{folder}")
    for module in (mlflow, getattr(mlflow, "tracking", None)):
        for name in ("set_tracking_uri", "set_registry_uri"):
            if hasattr(module, name):
                setattr(module, name, lambda *args, **kwargs: None)
    client = getattr(mlflow, "MlflowClient", None)
    if client is not None:
        own = client.__init__
        client.__init__ = functools.wraps(own)(lambda self, *args, **kwargs: own(self))  # without a URI of the script
