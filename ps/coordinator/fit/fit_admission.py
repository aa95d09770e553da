"""Checks of a worker that registers for a call of a script's `fit`.

This module is pure: it does no I/O and reads no clock.
"""

from __future__ import annotations

from collections.abc import Sequence

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest, JobConflict, LayoutMismatch, Unsupported
from downpour.protos.layout import Layout
from downpour.ps.config import ServerSettings
from downpour.ps.coordinator.admission import check_layout, settings_with_optimizers
from downpour.ps.core.consistency import consistency_of
from downpour.ps.core.schedules import check_rates

MAX_NAME = 100  # characters of a model's name in reports


def check_turn(request: pb.RegisterRequest, current: int) -> None:
    """Check that a worker registers for the current call of `fit` or for the next one.

    Args:
        request: The registration.
        current: The number of the current call; 0 before the first.

    Raises:
        Unsupported: The worker does not belong to a script.
        JobConflict: The worker skipped a call, or has trained in one that the servers have not begun.
    """
    if not request.fit_call or not request.optimizers:
        raise Unsupported("this server runs a script: start workers with `downpour run` or downpour.worker.fit.")
    if not current <= request.fit_call <= current + 1:
        raise JobConflict(
            f"a worker must register for call {current} or {current + 1} of fit; received call "
            f"{request.fit_call}. Run the same script everywhere."
        )
    if request.fit_call == current + 1 and request.has_trained:
        raise JobConflict(
            f"the servers must have a checkpoint of call {request.fit_call} of fit, which the worker has begun "
            f"to train; the newest one is of call {current}. Start the script again."
        )


def check_joins(request: pb.RegisterRequest, independent: bool, optimizers: str) -> None:
    """Check that a worker trains like the others of the call of `fit` that it joins.

    Args:
        request: The registration.
        independent: Whether the workers of the call are clients of `downpour.connect`.
        optimizers: The names of the optimizers of the call.

    Raises:
        JobConflict: The worker is of another kind, or its optimizers differ.
    """
    if request.independent != independent:
        raise JobConflict(
            "a job must have either clients of downpour.connect or workers that call fit. Received: both. "
            "Start another server for the clients."
        )
    if names_of(request.optimizers) != optimizers:
        raise JobConflict(
            f"all workers must use the same optimizers, {optimizers}; received "
            f"{names_of(request.optimizers)}. Run the same script everywhere."
        )


def check_weights(layout: Layout, agreed: Layout | None, settings: ServerSettings) -> None:
    """Check that a worker's model has the same weights as the other workers'; their names may differ.

    Keras numbers layers, and the callbacks of worker 0 may have built some.

    Args:
        layout: The layout of the worker's model.
        agreed: The layout of the call; None if this worker is the first.
        settings: The settings of the job.

    Raises:
        LayoutMismatch: The shapes differ.
        TooLarge: The first layout has more weights than any job may have.
        InvalidRequest: The first layout cannot be divided into the shards.
    """
    if agreed is None:
        check_layout(layout, None, settings)
    elif not agreed.fits(layout):
        raise LayoutMismatch(
            f"a model must have the same weights on all workers: {agreed.difference(layout)}. Build it from "
            "the same data everywhere, with a seed where it is drawn or shuffled."
        )


def settings_of_call(request: pb.RegisterRequest, settings: ServerSettings) -> ServerSettings:
    """Return the settings of the call of `fit` that a registration begins, which brings model and optimizers.

    Args:
        request: The registration of the first worker of the call.
        settings: The settings of the job.

    Raises:
        Unsupported: The servers do not have the optimizers, or clients of `downpour.connect` cannot use the settings.
        InvalidRequest: The layout cannot be divided into the shards, or the optimizers do not fit to it.
    """
    settings = settings_of_fit(request.optimizers, request.fit, settings)
    layout = Layout.from_proto(request.layout)
    layout.cut(settings.shards)
    if max(tensor.flags.optimizer for tensor in layout.trained_tensors) >= len(request.optimizers):
        raise InvalidRequest(
            f"a tensor must refer to one of the {len(request.optimizers)} optimizers; received one that refers to "
            "another. Check that both sides run the same version."
        )
    for spec in request.optimizers:
        check_rates(spec.learning_rates)
    if request.independent:
        _check_every_gradient(settings)
    return settings


def settings_of_fit(
    optimizers: Sequence[pb.OptimizerSpec], fit: pb.FitDescription, settings: ServerSettings
) -> ServerSettings:
    """Return the settings with the optimizer and the name of the model of a call of `fit`.

    Raises:
        Unsupported: The servers do not have the optimizers.
    """
    settings = settings_with_optimizers(settings, optimizers)
    return settings.model_copy(update={"model": fit.model[:MAX_NAME] or settings.model})


def required_workers(independent: bool, data: pb.DatasetInfo, workers: int) -> Sequence[int]:
    """Return the workers that each have a fixed part of the data: none if the samples are leased."""
    return () if independent or data.lease_samples else range(workers)


def check_warm_start(settings: ServerSettings, required: Sequence[int]) -> None:
    """Raise Unsupported if a job begins with one worker, while each worker has a fixed part of the data."""
    if settings.warm_start and len(required) > 1:
        raise Unsupported(
            f"--warm-start needs data whose samples are leased, so that one worker can begin. Received: --warm-start "
            f"{settings.warm_start}, and data of which each worker has a fixed part. Pass arrays or a LeasedDataset to "
            "fit, or leave --warm-start out."
        )


def names_of(optimizers: Sequence[pb.OptimizerSpec]) -> str:
    """Return the names of optimizers, separated by commas."""
    return ", ".join(optimizer.name for optimizer in optimizers)


def _check_every_gradient(settings: ServerSettings) -> None:
    """Raise Unsupported if the settings concern local steps, which a client of `downpour.connect` does not make."""
    given = [
        *([f"--mode {settings.mode}"] if consistency_of(settings.mode).payload != "gradient" else []),
        *(["--push-every"] if settings.push_every > 1 else []),
        *(["--fetch-every"] if (settings.fetch_every or 1) > 1 else []),
        *(["--overlap"] if settings.overlap else []),
        *(["--warm-start"] if settings.warm_start else []),
    ]
    if given:
        raise Unsupported(
            "a client of downpour.connect pushes every gradient and pulls when it asks to. Received: a server with "
            f"{', '.join(given)}. Start the server without."
        )
