"""Wraps Keras in a worker of a script: methods of its trainer, and the functions that save and load."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from weakref import WeakSet

import keras
from keras.src.saving import saving_api

from downpour.protos.errors import Unsupported
from downpour.worker.fit.cluster.script_worker import ScriptWorker
from downpour.worker.fit.fit import distributed_fit
from downpour.worker.fit.fit_arguments import other_verbosity
from downpour.worker.fit.optimizer.distributed_optimizer import (
    DistributedMixin,
    DistributedOptimizer,
)
from downpour.worker.fit.optimizer.loss_scale import innermost, is_loss_scale, let_scale
from downpour.worker.fit.optimizer.model_optimizers import distributed_of, optimizers_of
from downpour.worker.fit.optimizer.whole_state import as_plain, loading
from downpour.worker.fit.process.script_files import FOLDER, WRITE
from downpour.worker.fit.process.script_process import ScriptProcess

restored: WeakSet[Any] = WeakSet()  # models that Keras has compiled from a configuration
SILENT = ("evaluate", "predict")  # without a progress bar on all workers except worker 0


def wrap_trainer(model: Any, member: ScriptWorker, process: ScriptProcess) -> None:
    """Wrap the methods of a model that compile, train, evaluate and save, in the classes of Keras that define them.

    Args:
        model: The class `keras.Model`.
        member: This worker.
        process: The random state and the files of this process.
    """
    _wrap(model, "compile", _compile)
    _wrap(model, "fit", functools.partial(_fit, member, process))
    for name in SILENT:
        _wrap(model, name, functools.partial(_silent, member))
    _wrap(model, "export", functools.partial(_saved, member, process))
    _wrap(model, "compile_from_config", _restored)
    _wrap(model, "__reduce__", _pickled)
    _replace("load_weights", _loaded)
    for name in ("save_model", "save_weights"):
        _replace(name, functools.partial(_saved, member, process))


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
    if isinstance(innermost(given["optimizer"]), DistributedMixin):
        if given["jit_compile"] is True:
            print(
                "downpour: jit_compile=True is not supported with a DistributedOptimizer; XLA is off", file=sys.stderr
            )
        given["jit_compile"] = False
    restored.discard(model)
    result = own(model, **given)
    if is_loss_scale(model.optimizer) and isinstance(model.optimizer.inner_optimizer, DistributedMixin):
        let_scale(model.optimizer, model.optimizer.inner_optimizer)  # Keras has added it under mixed_float16
    return result


def _fit(
    member: ScriptWorker, process: ScriptProcess, own: Callable[..., Any], model: Any, *args: Any, **kwargs: Any
) -> Any:
    given = _arguments(own, model, args, kwargs)
    if model in restored and not distributed_of(model):
        DistributedOptimizer(model.optimizer)
        if member.is_leader:
            print("downpour: this model was loaded or cloned; its optimizer is distributed", file=sys.stderr)
    if distributed_of(model):
        if member.in_fit:
            raise Unsupported(
                "fit of a model with a distributed optimizer must not be called within another fit. Received: a call "
                "by a callback or by a train step. Train that model after the outer fit, or compile it with a plain "
                "optimizer."
            )
        history = distributed_fit(own, model, member, process, given)
        process.fitted(model)
        return history
    if member.is_leader:
        print("downpour: this model has no DistributedOptimizer; every worker trains its own copy", file=sys.stderr)
    else:
        given["verbose"] = other_verbosity(given["verbose"])
    return own(model, **given)


def _restored(own: Callable[..., Any], model: Any, *args: Any, **kwargs: Any) -> Any:
    """Compile a model that is loaded or cloned, and let `fit` distribute its optimizer."""
    result = own(model, *args, **kwargs)
    if getattr(model, "optimizer", None) is not None:
        restored.add(model)
    return result


def _pickled(own: Callable[..., Any], model: Any, *args: Any) -> Any:
    """Pickle or copy a model with the whole state of its optimizers."""
    with ExitStack() as plain:
        for optimizer in optimizers_of(model) if isinstance(model, keras.Model) else ():
            plain.enter_context(as_plain(optimizer))
        return own(model, *args)


def _loaded(own: Callable[..., Any], model: Any, *args: Any, **kwargs: Any) -> Any:
    """Load weights and, if the file has it, the whole state of the optimizers."""
    with ExitStack() as whole:
        for optimizer in optimizers_of(model):
            whole.enter_context(loading(optimizer))
        return own(model, *args, **kwargs)


def _silent(member: ScriptWorker, own: Callable[..., Any], model: Any, *args: Any, **kwargs: Any) -> Any:
    given = _arguments(own, model, args, kwargs)
    if not member.is_leader:
        given["verbose"] = other_verbosity(given["verbose"])
    return own(model, **given)


def _saved(
    member: ScriptWorker, process: ScriptProcess, own: Callable[..., Any], model: Any, *args: Any, **kwargs: Any
) -> Any:
    """Save for plain Keras: at the given path on worker 0, in a private file on the others."""
    given = _arguments(own, model, args, kwargs)
    given["filepath"] = process.files.place(given["filepath"], FOLDER if own.__name__ == "export" else WRITE)
    if not member.is_leader and "verbose" in given:
        given["verbose"] = False
    with ExitStack() as plain:
        for optimizer in optimizers_of(model):
            plain.enter_context(as_plain(optimizer))
        return own(model, **given)


def _arguments(own: Callable[..., Any], model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return all arguments by name, including defaults."""
    bound = inspect.signature(own).bind(model, *args, **kwargs)
    bound.apply_defaults()
    given = dict(bound.arguments)
    del given[next(iter(given))]  # the model: self of a method
    more = given.pop("kwargs", {})
    return {**given, **more}
