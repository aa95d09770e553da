"""Wraps Keras in a worker of a script: methods of its trainer, and the functions that save and load."""

from __future__ import annotations

import atexit
import functools
import importlib
import inspect
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from keras.src.saving import saving_api

from downpour.protos.errors import Unsupported
from downpour.worker.fit.cluster.member import ScriptWorker
from downpour.worker.fit.fit import distributed_fit
from downpour.worker.fit.optimizer.distributed_optimizer import DistributedMixin, as_plain
from downpour.worker.fit.optimizer.model_optimizers import distributed_of, optimizers_of
from downpour.worker.fit.process.randomness import Randomness

SILENT = ("evaluate", "predict")  # without a progress bar on all workers except worker 0


class PrivateFiles:
    """The files that a worker other than 0 saves, in a temporary folder that is removed when its process ends."""

    def __init__(self) -> None:
        """Build an empty set; the folder is created with the first file."""
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._places: dict[str, str] = {}

    def path_to_write(self, path: Any) -> str:
        """Return the private path for what a script saves at `path`; each call for one path returns the same."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="downpour-copies-")
        key = os.path.abspath(os.fspath(path))
        if key not in self._places:
            folder = Path(self._folder.name) / str(len(self._places))
            folder.mkdir()
            self._places[key] = str(folder / Path(key).name)
        return self._places[key]

    def close(self) -> None:
        """Remove the temporary folder with all files in it; later saves create a new one."""
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
        self._places.clear()

    def path_to_read(self, path: Any) -> Any:
        """Return the private path if this worker has saved at `path`, and `path` itself otherwise."""
        try:
            return self._places.get(os.path.abspath(os.fspath(path)), path)
        except TypeError:
            return path  # an open file or an address


private_files = PrivateFiles()


def wrap_trainer(model: Any, member: ScriptWorker, randomness: Randomness) -> None:
    """Wrap the methods of a model that compile, train, evaluate and save, in the classes of Keras that define them.

    Args:
        model: The class `keras.Model`.
        member: This worker.
        randomness: The random state of this process.
    """
    _wrap(model, "compile", _compile)
    _wrap(model, "fit", functools.partial(_fit, member, randomness))
    for name in SILENT:
        _wrap(model, name, functools.partial(_silent, member))
    _wrap(model, "export", functools.partial(_saved, member))
    for name in ("save_model", "save_weights"):
        _replace(name, functools.partial(_saved, member))


def wrap_loading() -> None:
    """Make the functions that load a file read the private copy of what this worker has saved; not for worker 0."""
    atexit.register(private_files.close)
    for name in ("load_model", "load_weights"):
        _replace(name, functools.partial(_loaded, "filepath"))
    # TensorFlow imports the module by this name again later, and would find its own functions.
    saved_model = importlib.import_module("tensorflow.saved_model")
    vars(saved_model)["load"] = functools.partial(_loaded, "export_dir", saved_model.load)


def _replace(name: str, wrapper: Callable[..., Any]) -> None:
    """Replace a function of Keras's saving in all modules of Keras that export it."""
    own = getattr(saving_api, name)
    wrapped = functools.wraps(own)(functools.partial(wrapper, own))
    for module in [module for path, module in sys.modules.items() if path.split(".")[0] == "keras"]:
        if vars(module).get(name) is own:
            setattr(module, name, wrapped)


def _wrap(model: Any, name: str, wrapper: Callable[..., Any]) -> None:
    owner = next(kind for kind in model.__mro__ if name in vars(kind))
    own = vars(owner)[name]

    @functools.wraps(own)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        return wrapper(own, self, *args, **kwargs)

    setattr(owner, name, wrapped)


def _compile(own: Callable[..., Any], model: Any, *args: Any, **kwargs: Any) -> Any:
    """Compile without XLA, whose code cannot call the servers."""
    given = _arguments(own, model, args, kwargs)
    if isinstance(given["optimizer"], DistributedMixin):
        if given["jit_compile"] is True:
            print(
                "downpour: jit_compile=True is not supported with a DistributedOptimizer; XLA is off", file=sys.stderr
            )
        given["jit_compile"] = False
    result = own(model, **given)
    inner = getattr(
        model.optimizer, "inner_optimizer", None
    )  # of the LossScaleOptimizer that Keras adds under mixed_float16
    if isinstance(inner, DistributedMixin):
        raise Unsupported(
            "a model with a distributed optimizer must not scale its loss. Received: the policy mixed_float16, which "
            "requires it. Use mixed_bfloat16."
        )
    return result


def _fit(
    member: ScriptWorker, randomness: Randomness, own: Callable[..., Any], model: Any, *args: Any, **kwargs: Any
) -> Any:
    given = _arguments(own, model, args, kwargs)
    if distributed_of(model):
        return distributed_fit(own, model, member, randomness, given)
    if member.is_leader:
        print("downpour: this model has no DistributedOptimizer; every worker trains its own copy", file=sys.stderr)
    else:
        given["verbose"] = 0
    return own(model, **given)


def _silent(member: ScriptWorker, own: Callable[..., Any], model: Any, *args: Any, **kwargs: Any) -> Any:
    given = _arguments(own, model, args, kwargs)
    if not member.is_leader:
        given["verbose"] = 0
    return own(model, **given)


def _saved(member: ScriptWorker, own: Callable[..., Any], model: Any, *args: Any, **kwargs: Any) -> Any:
    """Save for plain Keras: at the given path on worker 0, in a private file on the others."""
    given = _arguments(own, model, args, kwargs)
    if not member.is_leader:
        given["filepath"] = private_files.path_to_write(given["filepath"])
        given |= {"verbose": False} if "verbose" in given else {}
    with ExitStack() as plain:
        for optimizer in optimizers_of(model):
            plain.enter_context(as_plain(optimizer))
        return own(model, **given)


def _loaded(parameter: str, own: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    bound = inspect.signature(own).bind(*args, **kwargs)
    bound.arguments[parameter] = private_files.path_to_read(bound.arguments[parameter])
    return own(*bound.args, **bound.kwargs)


def _arguments(own: Callable[..., Any], model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return all arguments by name, including defaults."""
    bound = inspect.signature(own).bind(model, *args, **kwargs)
    bound.apply_defaults()
    given = dict(bound.arguments)
    del given[next(iter(given))]  # the model: self of a method
    more = given.pop("kwargs", {})
    return {**given, **more}
