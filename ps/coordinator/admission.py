"""Checks of a worker's registration: its protocol version, layout, data set, optimizer and environment facts.

This module is pure: it does no I/O and reads no clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import JobConflict, LayoutMismatch, TooLarge, Unsupported
from downpour.protos.layout import Layout
from downpour.protos.protocol import PROTOCOL
from downpour.protos.settings import flag, problems_of
from downpour.ps.config import ServerSettings
from downpour.ps.config_checks import refusal_of_optimizer
from downpour.ps.core.rules.hyperparameters import known_hyperparameters, resolve
from downpour.ps.core.rules.update_rules import OPTIMIZERS

LEASES_PER_WORKER = 16  # per epoch: with small leases all workers end an epoch at about the same time
MAX_FACTS, MAX_FACT_CHARACTERS = 50, 8_000  # limits for the environment facts of one worker
LARGEST_LAYOUT = 1 << 31  # the largest number of weights: 8 GiB of float32


def check_protocol(protocol: int) -> None:
    """Raise Unsupported unless the peer speaks this version of the protocol."""
    if protocol != PROTOCOL:
        raise Unsupported(f"both sides must speak protocol {PROTOCOL}; received {protocol}. Install the same version.")


def check_layout(layout: Layout, agreed: Layout | None, settings: ServerSettings) -> None:
    """Check that a worker's layout equals the job's or, if the job has none yet, that it can be divided into shards.

    Args:
        layout: The layout of the worker's model.
        agreed: The job's layout; None if there is none yet.
        settings: The settings of the job.

    Raises:
        TooLarge: The layout has more weights than any job may have.
        InvalidRequest: The layout cannot be cut into the job's shards.
        LayoutMismatch: The layout differs from the job's.
    """
    if layout.size > LARGEST_LAYOUT:
        raise TooLarge(f"a model must have at most {LARGEST_LAYOUT:,} weights; received one of {layout.size:,}.")
    if agreed is None:
        layout.cut(settings.shards)
        return
    difference = agreed.difference(layout)
    if difference is not None:
        raise LayoutMismatch(f"a worker's model must be the job's, {settings.model!r}: {difference}.")


def check_data(data: pb.DatasetInfo, agreed: pb.DatasetInfo | None) -> None:
    """Raise LayoutMismatch unless a worker's data set equals the job's; that of the first worker must not be empty."""
    if agreed is None:
        if not data.train_samples:
            raise LayoutMismatch(f"a job needs training samples; the data {data.name!r} have none.")
    elif data.checksum != agreed.checksum or data.train_samples != agreed.train_samples:
        raise LayoutMismatch(
            f"a worker's data must be the job's, {agreed.name!r} with checksum {agreed.checksum[:12]} and "
            f"{agreed.train_samples} training samples; received {data.name!r} with {data.checksum[:12]} and "
            f"{data.train_samples}. Give every worker the same data file and, if layers are frozen, the same --weights."
        )


def check_frozen(data: pb.DatasetInfo, agreed: pb.DatasetInfo | None) -> None:
    """Raise LayoutMismatch unless the frozen weights of a script's worker are those of the others."""
    if agreed is not None and data.checksum != agreed.checksum:
        raise LayoutMismatch(
            f"frozen weights must be the same on all workers; received checksums {agreed.checksum[:12]} and "
            f"{data.checksum[:12]}. Load them from one file, or call keras.utils.set_random_seed before the model "
            "is built."
        )


def check_fingerprint(found: str, agreed: str, model: str) -> None:
    """Raise LayoutMismatch unless the configuration of a worker's model is that of the first worker's."""
    if found != agreed:
        raise LayoutMismatch(
            f"a worker's model must be the job's, {model!r}: its layers have the same weights and another "
            f"configuration, such as another activation; received {found}, expected {agreed}. Give every worker the "
            "same code and the same version of Keras."
        )


def check_optimizer(compiled: pb.OptimizerSpec, settings: ServerSettings) -> None:
    """Raise JobConflict unless the optimizer that a worker's model is compiled with is the job's."""
    ours = resolve(settings.optimizer, settings.hyper)
    theirs = dict(compiled.hyperparameters)
    same = compiled.name == settings.optimizer and all(
        math.isclose(theirs.get(name, value), value, rel_tol=1e-6, abs_tol=1e-12) for name, value in ours.items()
    )
    if not same:
        raise JobConflict(
            f"a compiled model must be trained with its own optimizer, {_flags(compiled.name, theirs)}; the job has "
            f"{_flags(settings.optimizer, ours)}. Start the job with these flags of the model, or compile the model "
            "without an optimizer."
        )


def _flags(optimizer: str, hyperparameters: Mapping[str, float]) -> str:
    """Return the flags that choose an optimizer."""
    usual = OPTIMIZERS[optimizer].defaults if optimizer in OPTIMIZERS else {}
    others = {name: value for name, value in hyperparameters.items() if value != usual.get(name)}
    given = [f"{flag(name)} {value:.6g}" for name, value in sorted(others.items()) if name != "learning_rate"]
    given.insert(0, f"--learning-rate {hyperparameters.get('learning_rate', math.nan):.6g}")
    return " ".join([f"--optimizer {optimizer}", *given])


def check_fingerprints(data: pb.DatasetInfo, agreed: pb.DatasetInfo | None) -> None:
    """Raise LayoutMismatch unless a worker of a script gives `fit` the same arrays as the others."""
    if agreed is None:
        return
    ours, theirs = agreed.fingerprints, data.fingerprints
    different = [name for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)]
    if different:
        name = different[0]
        raise LayoutMismatch(
            "the data given to fit must be the same on all workers, before they are divided: otherwise a worker trains "
            f"on what another one tests on, or numbers classes otherwise. Received: {name} = "
            f"{ours.get(name, 'none')} on one worker, {theirs.get(name, 'none')} on another"
            f"{f' ({len(different)} arrays differ)' if len(different) > 1 else ''}. Give every draw, shuffle and "
            "split a seed, such as np.random.default_rng(0), and sort the names of files and classes."
        )


def lease_samples(settings: ServerSettings, samples: int) -> int:
    """Return the number of samples in a lease, a multiple of the batch size, for an epoch of `samples` samples."""
    batch = settings.batch_size
    batches = settings.lease_batches or samples // (batch * LEASES_PER_WORKER * settings.workers)
    if not settings.lease_batches:  # a lease holds a whole number of pushes
        batches = -(-batches // settings.push_every) * settings.push_every
    return batch * max(1, batches)


def bounded(facts: Mapping[str, str]) -> dict[str, str]:
    """Return at most `MAX_FACTS` of a worker's facts, with at most `MAX_FACT_CHARACTERS` characters in total."""
    kept: dict[str, str] = {}
    for name, fact in list(facts.items())[:MAX_FACTS]:
        if sum(map(len, kept.values())) + len(fact) <= MAX_FACT_CHARACTERS:
            kept[name[:100]] = fact
    return kept


def settings_with_optimizers(settings: ServerSettings, optimizers: Sequence[pb.OptimizerSpec]) -> ServerSettings:
    """Return the settings with the first of the optimizers that a script's workers bring.

    Raises:
        Unsupported: There is no such optimizer, or it does not take these hyperparameters.
    """
    try:
        for each in optimizers:
            resolve(each.name, each.hyperparameters)
    except (ValueError, TypeError) as error:
        raise Unsupported(f"the servers have {', '.join(OPTIMIZERS)}: {error}") from error
    optimizer = optimizers[0]
    own = {**dict.fromkeys(known_hyperparameters()), **optimizer.hyperparameters, "optimizer": optimizer.name}
    try:
        found = ServerSettings.model_validate({**settings.model_dump(), **own})
    except ValidationError as error:
        raise Unsupported("; ".join(problems_of(error, ServerSettings))) from error
    if refusal_of_optimizer(found):
        raise Unsupported(
            f"--momentum-correction takes from an optimizer's momentum; the script's optimizer, {optimizer.name}, has "
            "none. Give it a momentum, or omit the flag."
        )
    return found
