"""What `model.fit` becomes in a script that `downpour run` has started: its arguments, on each worker.

Each worker trains on its part of the data, in Keras's own loop; `epochs` says what happens between epochs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from downpour.protos.errors import Unsupported
from downpour.worker.fit.build_model import build
from downpour.worker.fit.data_parts import part_of, steps_of, validation_split
from downpour.worker.fit.epochs import Epochs
from downpour.worker.fit.keras_hooks import Attached, First, Last
from downpour.worker.fit.member import ScriptWorker


def distributed_fit(fit: Callable[..., Any], model: keras.Model, member: ScriptWorker, given: dict[str, Any]) -> Any:
    """Trains a model together with the other workers; returns the history, the same on all.

    Args:
        fit: Keras's own.
        model: Compiled with a distributed optimizer.
        member: This worker.
        given: All arguments of `fit` but the model.

    Raises:
        DownpourError: As the servers said.
        Diverged: Too many gradients in a row were not finite.
    """
    leased = given["x"] if hasattr(given["x"], "of_worker") else None
    given["x"] = build(model, given["x"], given["y"], given["sample_weight"])
    callbacks = _listed(given["callbacks"])
    epochs = Epochs(model, member, given["initial_epoch"], given["epochs"], leased, callbacks)
    arguments = _own_part(given, member)
    arguments["callbacks"] = [First(epochs), *(callbacks if member.leads else []), Last(epochs)]
    failure = ""
    try:
        with Attached(epochs):
            history = fit(model, **arguments)
        epochs.complete(history)
        # Worker 0 alone has validated and run callbacks, which may have drawn random numbers; what the script builds
        # or shuffles from here on is to be the same everywhere again.
        keras.utils.set_random_seed((member.seed + member.stages) % 2**32)
        return history
    except Exception as error:
        cause = epochs.error or error
        failure = str(cause) or type(cause).__name__
        if cause is not error:
            raise cause from None
        raise
    finally:
        member.leave(failure)


def _own_part(given: dict[str, Any], member: ScriptWorker) -> dict[str, Any]:
    """The arguments with this worker's part of the data; what is seen, worker 0 does alone."""
    rank, size = member.rank, member.size
    own = dict(given)
    if given["validation_split"] and given["validation_data"] is None:
        whole = (given["x"], given["y"], given["sample_weight"])
        (own["x"], own["y"], own["sample_weight"]), own["validation_data"] = validation_split(
            *whole, given["validation_split"]
        )
    own["validation_split"] = 0.0
    if hasattr(own["x"], "of_worker"):
        own["x"], own["shuffle"] = own["x"].of_worker(member), False
    else:
        for name in ("x", "y", "sample_weight"):
            own[name] = part_of(own[name], rank, size, member.seed)
        own["steps_per_epoch"] = steps_of(given["steps_per_epoch"], rank, size)
    if not member.leads:
        own["validation_data"], own["verbose"] = None, 0
    return own


def _listed(callbacks: Any) -> list[Any]:
    """The script's callbacks.

    Raises:
        Unsupported: One of them goes on from weights that the servers do not have.
    """
    one = isinstance(callbacks, keras.callbacks.Callback) and not hasattr(callbacks, "callbacks")
    listed = [callbacks] if one else list(getattr(callbacks, "callbacks", callbacks) or ())
    for callback in listed:
        if isinstance(callback, keras.callbacks.BackupAndRestore | keras.callbacks.SwapEMAWeights):
            raise Unsupported(
                f"fit must be without {type(callback).__name__}, whose weights or counters live in one process. "
                "Use ModelCheckpoint."
            )
    return listed
