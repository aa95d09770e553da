"""Trains a Keras model on a local cluster from Python: `LocalCluster(workers=4).fit(model, x, y, epochs=5)`.

This module does not import TensorFlow; it calls the methods of the caller's model that save and load weights.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from downpour.deploy.launch.gpus import devices_here
from downpour.deploy.launch.launcher import INTERRUPTED
from downpour.deploy.launch.plan import TooFewGpus, assigned_gpus
from downpour.deploy.launch.resume import CannotResume
from downpour.deploy.launch.run_dir import read_summary
from downpour.deploy.launch.scratch import Scratch
from downpour.deploy.scripts.notebook_screen import NotebookScreen
from downpour.deploy.scripts.script_launcher import LEADER, ScriptLauncher, prepared_run, script_plan
from downpour.deploy.scripts.script_settings import RunSettings, refused_variables
from downpour.deploy.scripts.session_callbacks import SessionCallbacks, listed
from downpour.protos.array_tree import flatten
from downpour.protos.logs import reason_of
from downpour.protos.system.command import VARIABLE
from downpour.worker import config as worker_config

DATA = ("x", "y", "sample_weight", "validation_data")
LAMBDA = "a lambda"
TASK_SCRIPT = str(Path(worker_config.__file__).with_name("fit") / "notebook_fit.py")
NAME = "notebook"
STALENESS = ("mean", "p99", "max")  # of the summary
LINE_PER_EPOCH = 2  # Keras's `verbose`: a progress bar needs a terminal


class FitFailed(RuntimeError):
    """The cluster could not be started, or ended with an error; the message gives the cause and the folder of logs.

    Example:
        try:
            LocalCluster(workers=2).fit(model, x, y)
        except FitFailed as error:
            print(error)
    """


@dataclass(frozen=True)
class FitHistory:
    """The metrics of a training that `LocalCluster.fit` returns, like Keras's `History`.

        history = LocalCluster(workers=2).fit(model, x, y, epochs=3)
        print(history.history["loss"][-1], history.run)

    Attributes:
        history: The values of every metric, one for each epoch.
        epoch: The numbers of the epochs, from `initial_epoch`.
        run: The run directory, with the summary, the trace and the logs.
        staleness: The mean, the 99th percentile and the maximum of the staleness of the updates, as `mean`, `p99` and
            `max`.
    """

    history: dict[str, list[float]]
    epoch: list[int]
    run: str
    staleness: dict[str, float] = field(default_factory=dict)


class LocalCluster:
    """A cluster of servers and workers on this machine, which is started again for every call of `fit`.

        model.compile("adam", loss="mse")
        history = LocalCluster(workers=4, mode="ssp:2").fit(model, x, y, epochs=5)

    It is meant for notebooks and for programs; a script is run with `downpour run`.
    """

    kind: ClassVar[type[RunSettings]] = RunSettings
    runs_callbacks: ClassVar[bool] = True  # in this process, by files that worker 0 shares with it

    def __init__(self, workers: int = 2, shards: int = 1, modules: Sequence[str] = (), **settings: Any) -> None:
        """Check the settings of a cluster. Processes are started by `fit`.

        Args:
            workers: The number of processes that compute gradients.
            shards: The number of processes that hold the weights.
            modules: Names of the modules that the workers import before they load the model: those that register its
                own layers, losses and metrics with Keras.
            settings: Other settings of `downpour run`, such as `mode="ssp:2"` or `runs_dir="runs"`.

        Raises:
            ValueError: A setting does not exist, its value is out of range, or a variable of the environment sets
                what a script defines.
        """
        if unknown := [name for name in settings if name not in self.kind.model_fields]:
            why = " ".join(dict.fromkeys(RunSettings.refused.get(name, "") for name in unknown)).strip()
            received = f"a cluster has {', '.join(self.kind.model_fields)}. Received: {', '.join(unknown)}."
            raise ValueError(f"{received} {why}".strip())
        if refusal := refused_variables(os.environ):
            raise ValueError(f"{refusal}.")
        self._settings = self.kind(workers=workers, shards=shards, **settings)
        if self._settings.without_progress:
            raise ValueError(f"{self._settings.without_progress}.")
        if self._settings.dry_run:
            raise ValueError("a cluster of a program must start its processes. Received: dry_run=True. Leave it out.")
        self._settings.take_effect()
        self._modules = list(modules)

    def fit(self, model: Any, x: Any, y: Any = None, **arguments: Any) -> FitHistory:
        """Train a compiled model in place. Call it from the main thread.

        The model is passed to the workers as a `.keras` file and the data as arrays; nothing is pickled. The output
        of worker 0 is printed, and a notebook shows the progress with loss, metrics and staleness. An interrupt
        (Ctrl-C, or the stop button of a notebook) ends training early, and the model receives the weights trained so
        far; before training has begun it remains as it was.

        Args:
            model: A Keras model that is compiled with a plain Keras optimizer.
            x: An array of inputs, or a dict or list of arrays.
            y: An array of targets, or a dict or list of arrays.
            arguments: Other arguments of `model.fit`. Callbacks run in this process, at the beginning and the end of
                every epoch and of training, with the logs and the weights of the job; they may stop training, and set
                the learning rate and the weights.

        Returns:
            The history of the metrics, the run directory and the staleness.

        Raises:
            TypeError: The model is not compiled, a callback has hooks for batches, or a layer or loss is defined in the
                session, where no other process finds it.
            FitFailed: The cluster could not be started, or ended with an error.
        """
        callbacks = listed(arguments.pop("callbacks", None))
        if callbacks and not self.runs_callbacks:
            raise TypeError("callbacks run in this process on a LocalCluster alone. Leave them out, or write a script.")
        _check(model)
        _check_lengths({"x": x, "y": y, "sample_weight": arguments.get("sample_weight")})
        arrays: dict[str, np.ndarray] = {}
        data = {"x": x, "y": y, **{name: arguments.pop(name) for name in DATA if name in arguments}}
        trees = {name: flatten(name, value, arrays) for name, value in data.items() if value is not None}
        if arguments.get("verbose", "auto") in ("auto", 1):
            arguments["verbose"] = LINE_PER_EPOCH
        task = _as_json({"data": trees, "arguments": arguments, "modules": self._modules, "callbacks": bool(callbacks)})
        _build(model, x)
        with self._folder() as folder:
            model.save(folder / "model.keras")
            _check_parts(folder / "model.keras")
            np.savez(folder / "arrays.npz", **arrays)  # type: ignore[arg-type]
            (folder / "task.json").write_text(task)
            session = SessionCallbacks(callbacks, model, folder, int(arguments.get("epochs", 1)))
            run = self._launch(folder, session)
            staleness = (read_summary(run) or {}).get("staleness") or {}
            figures = {name: float(staleness[name]) for name in STALENESS if name in staleness}
            if not (folder / "history.json").exists():
                print("downpour: training ended before it began: the model is as it was", file=sys.stderr)
                return FitHistory({}, [], str(run), figures)
            model.load_weights(folder / "trained.weights.h5")
            session.end()
            result = json.loads((folder / "history.json").read_text())
            return FitHistory(result["history"], result["epoch"], str(run), figures)

    def _folder(self) -> AbstractContextManager[Path]:
        """Return a folder for the model and the data, which exists until the context manager exits."""
        return Scratch()

    def _launch(self, folder: Path, session: SessionCallbacks) -> Path:
        """Train the model and data of a folder, call the callbacks meanwhile, and return the run directory.

        Raises:
            FitFailed: The cluster ended with an error.
            KeyboardInterrupt: It was interrupted twice, or before its processes had started.
        """
        if threading.current_thread() is not threading.main_thread():
            raise FitFailed("a cluster must be started from the main thread, which receives interrupts.")
        devices = devices_here(os.environ)
        try:
            assigned_gpus(self._settings.workers, devices, self._settings.gpus_per_worker)
        except TooFewGpus as failure:
            raise FitFailed(f"{failure}.") from None
        try:
            settings, run_dir = prepared_run(self._settings, NAME)
        except CannotResume as failure:
            raise FitFailed(f"{failure}") from None
        except OSError as failure:
            raise FitFailed(f"runs_dir must be a writable folder. Received: {reason_of(failure)}.") from None
        specs = script_plan(settings, str(run_dir), [TASK_SCRIPT, str(folder)], shown=False, devices=devices)
        specs[0] = replace(specs[0], env={**specs[0].env, VARIABLE: "LocalCluster.fit"})
        screen = NotebookScreen(run_dir / "logs" / f"{LEADER}.log")
        launcher = ScriptLauncher(specs, run_dir, screen, settings.drain_timeout_s, session.poll)
        code = launcher.run()
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        if code != 0:
            error = launcher.last_error()
            raise FitFailed(f"the cluster must end with status 0; it ended with {code}. Logs: {run_dir}/logs\n{error}")
        return run_dir


def _check(model: Any) -> None:
    if getattr(model, "optimizer", None) is None:
        raise TypeError("a model must be compiled with an optimizer before it is trained. Call model.compile(...).")
    if own := _defined_in_session(model):
        raise TypeError(
            f"the layers and losses of a model must be importable by other processes. Received: {', '.join(own)}, "
            "defined in this session. Move them to a module, register them there with "
            "keras.saving.register_keras_serializable(), and pass the module's name: LocalCluster(modules=[...])."
        )


def _check_lengths(data: Mapping[str, Any]) -> None:
    """Check that all arrays have one number of samples, before any process is started.

    Raises:
        TypeError: They differ.
    """
    lengths: dict[str, int] = {}
    for name, tree in data.items():
        for place, array in _arrays(name, tree):
            if np.ndim(array):
                lengths[place] = len(array)
    if len(set(lengths.values())) > 1:
        received = ", ".join(f"{place} has {length:,}" for place, length in lengths.items())
        raise TypeError(f"all arrays must have the same number of samples. Received: {received}.")


def _arrays(name: str, tree: Any) -> Iterator[tuple[str, Any]]:
    """Yield the arrays of a tree with names such as `x['image']`."""
    if isinstance(tree, Mapping):
        for key, each in tree.items():
            yield from _arrays(f"{name}[{key!r}]", each)
    elif isinstance(tree, list | tuple):
        if all(np.ndim(each) for each in tree):
            for place, each in enumerate(tree):
                yield from _arrays(f"{name}[{place}]", each)
    elif tree is not None:
        yield name, tree


def _defined_in_session(model: Any) -> list[str]:
    """Return the names of the layers and losses that are defined in `__main__`."""
    loss: Any = getattr(model, "loss", None)
    parts: list[Any] = list(getattr(model, "_flatten_layers", list)())
    parts += loss.values() if isinstance(loss, Mapping) else loss if isinstance(loss, list | tuple) else [loss]
    kinds = [part if hasattr(part, "__name__") else type(part) for part in parts]
    return sorted({kind.__name__ for kind in kinds if kind.__module__ == "__main__"})


def _check_parts(saved: Path) -> None:
    """Check that the parts of a saved model are not defined in the session, where no other process finds them.

    Raises:
        TypeError: A layer, a loss, a metric or another function is.
    """
    with zipfile.ZipFile(saved) as file:
        names = set(_parts(json.loads(file.read("config.json"))))
    session = vars(sys.modules["__main__"])
    own = {name for name in names if getattr(session.get(name), "__module__", "") == "__main__"}
    if found := sorted(own | (names & {LAMBDA})):
        raise TypeError(
            "the parts of a model must be importable by other processes. Received: "
            f"{', '.join(found)}, defined in this session. Move them to a module, register them there with "
            "keras.saving.register_keras_serializable(), and pass the module's name: LocalCluster(modules=[...])."
        )


def _parts(config: Any) -> Iterator[str]:
    """Yield the names of the classes and functions in the configuration of a model that are not Keras's own."""
    if isinstance(config, Mapping):
        name = config.get("class_name")
        if name == "__lambda__":
            yield LAMBDA
        elif name == "function" and isinstance(config.get("config"), str):
            yield config["config"]
        elif isinstance(name, str) and not str(config.get("module")).startswith("keras"):
            yield name
    for value in config.values() if isinstance(config, Mapping) else config if isinstance(config, list) else ():
        yield from _parts(value)


def _build(model: Any, x: Any) -> None:
    """Create the weights and the optimizer's slots, without which Keras warns about the saved file."""
    if not model.built:
        model(_first(x))
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


def _as_json(task: dict[str, Any]) -> str:
    def number(value: Any) -> Any:
        if isinstance(value, np.generic):
            return value.item()
        raise TypeError(f"arguments of fit must be numbers or strings. Received: {type(value).__name__}.")

    return json.dumps(task, default=number)


def _first(x: Any) -> Any:
    """Return the first sample of a tree of arrays, which a model needs to create its weights."""
    if isinstance(x, Mapping):
        return {name: _first(each) for name, each in x.items()}
    if isinstance(x, list | tuple):
        return [_first(each) for each in x]
    return np.asarray(x)[:1]
