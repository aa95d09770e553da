"""What of Keras is wrapped in a script's worker: the trainer's methods, and what saves and loads."""

from __future__ import annotations

import atexit
import functools
import importlib
import inspect
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keras.src.saving import saving_api

from downpour.protos.errors import Unsupported
from downpour.worker.fit.distributed_optimizer import Distributed, as_plain
from downpour.worker.fit.fit import distributed_fit
from downpour.worker.fit.member import ScriptWorker

SILENT = ("evaluate", "predict")  # on all workers but worker 0


class PrivateFiles:
    """The files of one worker, gone when its process ends."""

    def __init__(self) -> None:
        """There are none."""
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._places: dict[str, str] = {}

    def place_for(self, path: Any) -> str:
        """Where to write what the script wants at `path`; what was there before is written over."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="downpour-copies-")
        key = os.path.abspath(os.fspath(path))
        if key not in self._places:
            folder = Path(self._folder.name) / str(len(self._places))
            folder.mkdir()
            self._places[key] = str(folder / Path(key).name)
        return self._places[key]

    def close(self) -> None:
        """Removes them."""
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
        self._places.clear()

    def found(self, path: Any) -> Any:
        """Where to read what the script has at `path`: the copy, if this worker has saved there."""
        try:
            return self._places.get(os.path.abspath(os.fspath(path)), path)
        except TypeError:
            return path  # no path: an open file, or an address


copies = PrivateFiles()  # of what workers other than 0 save


def wrap_trainer(model: Any, member: ScriptWorker) -> None:
    """Replaces methods of Keras's trainer, in the classes that define them."""
    _wrap(model, "compile", _compile)
    _wrap(model, "fit", functools.partial(_fit, member))
    for name in SILENT:
        _wrap(model, name, functools.partial(_silent, member))
    _wrap(model, "export", functools.partial(_saved, member))
    for name in ("save_model", "save_weights"):
        _replace(name, functools.partial(_saved, member))


def wrap_loading() -> None:
    """On a worker other than 0, what loads a file finds this worker's own copy of what the script has saved there."""
    atexit.register(copies.close)
    for name in ("load_model", "load_weights"):
        _replace(name, functools.partial(_loaded, "filepath"))
    # By this name TensorFlow imports it again later, with functions of its own.
    saved_model = importlib.import_module("tensorflow.saved_model")
    vars(saved_model)["load"] = functools.partial(_loaded, "export_dir", saved_model.load)


def _replace(name: str, wrapper: Callable[..., Any]) -> None:
    """Replaces a function of Keras's saving wherever Keras shows it."""
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
    """Turns XLA off: it cannot call out to the servers."""
    given = _arguments(own, model, args, kwargs)
    if isinstance(given["optimizer"], Distributed):
        if given["jit_compile"] is True:
            print("downpour: jit_compile=True is not possible while servers train: compiled without", file=sys.stderr)
        given["jit_compile"] = False
    result = own(model, **given)
    inner = getattr(model.optimizer, "inner_optimizer", None)  # of what Keras wraps around it under mixed_float16
    if isinstance(inner, Distributed):
        raise Unsupported(
            "a model with a distributed optimizer must not have its loss scaled, which the policy mixed_float16 asks "
            "for. Use mixed_bfloat16."
        )
    return result


def _fit(member: ScriptWorker, own: Callable[..., Any], model: Any, *args: Any, **kwargs: Any) -> Any:
    given = _arguments(own, model, args, kwargs)
    if isinstance(model.optimizer, Distributed):
        return distributed_fit(own, model, member, given)
    if member.leads:
        print("downpour: this model has no DistributedOptimizer: every worker trains it by itself", file=sys.stderr)
    else:
        given["verbose"] = 0
    return own(model, **given)


def _silent(member: ScriptWorker, own: Callable[..., Any], model: Any, *args: Any, **kwargs: Any) -> Any:
    given = _arguments(own, model, args, kwargs)
    if not member.leads:
        given["verbose"] = 0
    return own(model, **given)


def _saved(member: ScriptWorker, own: Callable[..., Any], model: Any, *args: Any, **kwargs: Any) -> Any:
    """Worker 0 alone writes what is seen, for plain Keras."""
    given = _arguments(own, model, args, kwargs)
    if not member.leads:
        given["filepath"] = copies.place_for(given["filepath"])
        given |= {"verbose": False} if "verbose" in given else {}
    with as_plain(getattr(model, "optimizer", None)):
        return own(model, **given)


def _loaded(parameter: str, own: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    bound = inspect.signature(own).bind(*args, **kwargs)
    bound.arguments[parameter] = copies.found(bound.arguments[parameter])
    return own(*bound.args, **bound.kwargs)


def _arguments(own: Callable[..., Any], model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """All arguments by name, defaults included."""
    bound = inspect.signature(own).bind(model, *args, **kwargs)
    bound.apply_defaults()
    given = dict(bound.arguments)
    del given[next(iter(given))]  # the model: self of a method
    more = given.pop("kwargs", {})
    return {**given, **more}
