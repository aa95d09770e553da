"""What a worker brings when it registers must be the job's, and within bounds. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.channel import PROTOCOL
from downpour.protos.errors import LayoutMismatch, TooLarge, Unsupported
from downpour.protos.layout import Layout
from downpour.ps.config import ServerSettings

LEASES_PER_WORKER = 16  # of an epoch: small enough that the last ones end together
MOST_FACTS, MOST_FACT_CHARACTERS = 50, 8_000  # of a worker's environment
LARGEST_LAYOUT = 1 << 31  # weights: 8 GiB


def check_protocol(protocol: int) -> None:
    """Raises Unsupported unless the peer speaks this version of the protocol."""
    if protocol != PROTOCOL:
        raise Unsupported(f"both sides must speak protocol {PROTOCOL}; received {protocol}. Install the same version.")


def check_layout(layout: Layout, agreed: Layout | None, settings: ServerSettings) -> None:
    """Accepts a worker's layout.

    Args:
        layout: Of the worker's model.
        agreed: Of the job; None if there is none yet.
        settings: Of the job.

    Raises:
        TooLarge: It has more weights than any job may have.
        InvalidRequest: It cannot be cut into the job's shards.
        LayoutMismatch: It is not the job's.
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
    """Raises LayoutMismatch unless a worker's data are the job's, or, if it has none yet, can be."""
    if agreed is None:
        if not data.train_samples:
            raise LayoutMismatch(f"a job needs training samples; the data {data.name!r} have none.")
    elif data.checksum != agreed.checksum or data.train_samples != agreed.train_samples:
        raise LayoutMismatch(
            f"a worker's data must be the job's, {agreed.name!r} with checksum {agreed.checksum[:12]} and "
            f"{agreed.train_samples} training samples; received {data.name!r} with {data.checksum[:12]} and "
            f"{data.train_samples}. Give every worker the same file of data and, if layers are frozen, of --weights."
        )


def check_frozen(data: pb.DatasetInfo, agreed: pb.DatasetInfo | None) -> None:
    """Raises LayoutMismatch unless the frozen weights of a script's worker are those of the others."""
    if agreed is not None and data.checksum != agreed.checksum:
        raise LayoutMismatch(
            f"frozen weights must be the same on all workers; received checksums {agreed.checksum[:12]} and "
            f"{data.checksum[:12]}. Load them from one file, or call keras.utils.set_random_seed before the model "
            "is built."
        )


def lease_samples(settings: ServerSettings, samples: int) -> int:
    """Samples in a lease, where an epoch has `samples`."""
    batch = settings.batch_size
    batches = settings.lease_batches or samples // (batch * LEASES_PER_WORKER * settings.workers)
    if not settings.lease_batches:  # whole pushes
        batches = -(-batches // settings.push_every) * settings.push_every
    return batch * max(1, batches)


def bounded(facts: Mapping[str, str]) -> dict[str, str]:
    """What is kept of the facts that a worker tells."""
    kept: dict[str, str] = {}
    for name, fact in list(facts.items())[:MOST_FACTS]:
        if sum(map(len, kept.values())) + len(fact) <= MOST_FACT_CHARACTERS:
            kept[name[:100]] = fact
    return kept
