"""The replacement of `model.fit` in a script that `downpour run` has started: it prepares the arguments of each worker.

Each worker trains on its part of the data in Keras's own loop; `epochs` does the work between epochs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras.src.trainers.data_adapters import raise_unsupported_arg

from downpour.protos.errors import Unsupported
from downpour.worker.fit.cluster.leases import Leases
from downpour.worker.fit.cluster.script_worker import ScriptWorker
from downpour.worker.fit.data.data_parts import part_of, steps_of, validation_split
from downpour.worker.fit.data.fingerprint import fingerprints_of
from downpour.worker.fit.data.leased_batches import LeasedArrays, is_array_data
from downpour.worker.fit.data.leased_dataset import LeasedDataset
from downpour.worker.fit.data.leased_py_dataset import LeasedPyDataset, is_finite
from downpour.worker.fit.epochs import Epochs
from downpour.worker.fit.fit_arguments import FitArguments, other_verbosity
from downpour.worker.fit.job_callbacks import FirstCallback, LastCallback, listed, only_on_leader
from downpour.worker.fit.keras_hooks import TrainerHooks
from downpour.worker.fit.metrics.spread_validation import spread_validation
from downpour.worker.fit.optimizer.assignments import Assignments
from downpour.worker.fit.optimizer.build_weights import build_weights
from downpour.worker.fit.optimizer.model_optimizers import ModelOptimizers, model_optimizers
from downpour.worker.fit.optimizer.train_function import train_function_of
from downpour.worker.fit.optimizer.weight_checks import check_strategy
from downpour.worker.fit.process.randomness import DataRandomness
from downpour.worker.fit.process.script_process import ScriptProcess

BATCH_SIZE = 32  # Keras's default
DATA = ("x", "y", "sample_weight", "class_weight")  # arguments of `fit` that must be the same on all workers


def distributed_fit(
    fit: Callable[..., Any], model: keras.Model, member: ScriptWorker, process: ScriptProcess, given: dict[str, Any]
) -> Any:
    """Train a model together with the other workers.

    Args:
        fit: Keras's own `fit`.
        model: A model that is compiled with a distributed optimizer.
        member: This worker.
        process: The random state and the files of this process.
        given: All arguments of `fit` except the model.

    Returns:
        The history, which is the same on all workers.

    Raises:
        Unsupported: An argument of `fit`, the model, or what has become of its optimizer is not supported.
        DownpourError: A server cannot be reached, or has reported an error.
        Diverged: Too many gradients in a row were not finite.
    """
    _check_states(model, member.size)
    check_strategy(model, "a model")
    data = {name: given[name] for name in DATA} if member.size > 1 else {}
    paths = process.files.given_path
    if member.spreads_validation:
        data["validation_data"] = given["validation_data"]
    fingerprints = fingerprints_of(data, paths)  # before the data are divided, and before a generator begins
    randomness = DataRandomness()
    leased = _leased_data(given, member, randomness)
    function = train_function_of(model, leased=leased is not None)
    data_of_fit = (given["x"], given["y"], given["sample_weight"])
    given["x"], applied, assigned = build_weights(model, *data_of_fit, function.known)
    optimizers = model_optimizers(model, applied)
    samples = leased.samples if leased is not None else None
    leases = _leases_of(member, samples.batch_samples, optimizers, assigned) if samples is not None else None
    callbacks = listed(given["callbacks"])
    first, last = given["initial_epoch"], given["epochs"]
    size = leased.samples.batch_samples if isinstance(leased, LeasedArrays) else _batch_size(given)
    validation = spread_validation(model, given, member)
    of_all = FitArguments(first, last, optimizers, callbacks, samples, leases, fingerprints, size, assigned, validation)
    epochs = Epochs(model, member, of_all, function)
    if leased is not None and leases is not None:
        arguments = _leased_part(given, leased, leases)
    else:
        arguments = _own_part(given, member, randomness)
    if validation is not None:
        arguments["validation_data"] = validation.part(member.rank if validation.has_part(member.rank) else 0)
    elif not member.is_leader:
        arguments["validation_data"] = None
    arguments["verbose"] = given["verbose"] if member.is_leader else other_verbosity(given["verbose"])
    own = [callback for callback in callbacks if member.is_leader or not only_on_leader(callback)]
    arguments["callbacks"] = [FirstCallback(epochs), *own, LastCallback(epochs)]
    failure: BaseException | None = None
    try:
        with process.of_fit(member.stages + 1), TrainerHooks(epochs):
            return fit(model, **arguments)
    except BaseException as error:
        failure = epochs.error or error
        if failure is not error:
            raise failure from None
        raise
    finally:
        if leases is not None:
            leases.end_epoch()
        member.leave(failure)


def _leases_of(
    member: ScriptWorker, batch_samples: int, optimizers: ModelOptimizers, assigned: Assignments | None
) -> Leases:
    """Return the leases of a call of `fit`, in which one worker trains alone until it is known when it pushes."""
    is_unknown = assigned is not None and assigned.pushes_conditionally and assigned.has_sums
    return Leases(member, batch_samples, *optimizers.added_up, is_unknown)


def _leased_data(
    given: dict[str, Any], member: ScriptWorker, randomness: DataRandomness
) -> LeasedArrays | LeasedPyDataset | None:
    """Return the data of `fit` if their samples are leased; None if each worker has a fixed part of them.

    A part of the samples is held out for validation first.
    """
    seed = member.seed, member.stages + 1
    if isinstance(given["x"], keras.utils.PyDataset):
        _check_py_dataset(given)
    if isinstance(given["x"], LeasedDataset):
        return given["x"].leased_arrays(given["steps_per_epoch"], seed)
    if is_finite(given["x"]) and member.size > 1:
        return LeasedPyDataset.of_fit(given, seed, randomness)
    _hold_out(given)
    arrays = is_array_data(given["x"], given["y"], given["sample_weight"])
    return LeasedArrays.of_fit(given, seed) if arrays and member.size > 1 else None


def _check_py_dataset(given: dict[str, Any]) -> None:
    """Refuse arguments that a dataset contains itself, as Keras does.

    Raises:
        ValueError: Targets or weights of samples are given beside the dataset.
        Unsupported: `validation_split` is given, which needs arrays.
    """
    for name, what in (("y", "the targets"), ("sample_weight", "sample weights")):
        if given[name] is not None:
            raise_unsupported_arg(name, what, "PyDataset")
    _hold_out(given)


def _hold_out(given: dict[str, Any]) -> None:
    """Replace the argument `validation_split` by the samples that it holds out."""
    if given["validation_split"] and given["validation_data"] is None:
        whole = (given["x"], given["y"], given["sample_weight"])
        (given["x"], given["y"], given["sample_weight"]), given["validation_data"] = validation_split(
            *whole, given["validation_split"]
        )
    given["validation_split"] = 0.0


def _leased_part(given: dict[str, Any], leased: LeasedArrays | LeasedPyDataset, leases: Leases) -> dict[str, Any]:
    """Return the arguments of a worker whose batches are leased; the leases of an epoch end after its steps."""
    none = ("y", "sample_weight", "class_weight", "batch_size", "steps_per_epoch")
    size = given["validation_batch_size"] or given["batch_size"]
    own = {"x": leased.batches(leases), "shuffle": False, "validation_split": 0.0, "validation_batch_size": size}
    return {**given, **dict.fromkeys(none), **own}


def _own_part(given: dict[str, Any], member: ScriptWorker, randomness: DataRandomness) -> dict[str, Any]:
    """Return the arguments of a worker with its fixed part of the data."""
    rank, size = member.rank, member.size
    own = dict(given)
    for name in ("x", "y", "sample_weight"):
        own[name] = part_of(own[name], rank, size, member.seed, randomness)
    own["steps_per_epoch"] = steps_of(given["steps_per_epoch"], rank, size)
    return own


def _batch_size(given: dict[str, Any]) -> int:
    """Return the number of samples in a batch; 0 if the data are batched already."""
    arrays = all(hasattr(each, "shape") for each in keras.tree.flatten(given["x"]))
    return int(given["batch_size"] or BATCH_SIZE) if arrays else 0


def _check_states(model: keras.Model, workers: int) -> None:
    """Refuse layers that carry a state from one batch to the next, whose order the division of the data changes."""
    stateful = [layer.name for layer in model._flatten_layers() if getattr(layer, "stateful", False) is True]
    if stateful and workers > 1:
        raise Unsupported(
            "a model must not carry state from one batch to the next, which other workers train on. Received: layers "
            f"with stateful=True ({', '.join(stateful)}) and {workers} workers. Use one worker, or stateful=False with "
            "longer sequences."
        )
