"""The order in which an epoch of a script uses the batches of its data, as servers and workers compute it alike.

A ledger leases positions of an epoch. Without parts, position p is the p-th sample in the order of the epoch. With one
part for each of P workers, part w contains the batches w, w + P, w + 2P, ...: the positions of part 0 come first, then
those of part 1, and so on, and a worker that uses its part in order takes every P-th batch.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple


class EpochRange(NamedTuple):
    """The samples of an epoch: `[start, stop)` in the order of one pass over all samples.

    Attributes:
        number: The number of the pass, from 0; each has an order of its own.
        start: The first sample.
        stop: The end of the samples.
    """

    number: int
    start: int
    stop: int


def epoch_range(samples: int, batch_samples: int, batches: int, epoch: int) -> EpochRange:
    """Return the samples of an epoch; with fewer batches than a pass has, the following epochs continue the pass.

    As in Keras with `steps_per_epoch`, the last epoch of a pass is shorter if the pass does not divide evenly.

    Args:
        samples: The number of samples in a pass, at least 1.
        batch_samples: The number of samples in a batch.
        batches: The number of batches in an epoch; 0 for those of a whole pass.
        epoch: The number of the epoch, from 0.
    """
    size = min(batches * batch_samples, samples) or samples
    epochs = -(-samples // size)
    number, part = divmod(epoch, epochs)
    return EpochRange(number, part * size, min((part + 1) * size, samples))


def part_bounds(samples: int, batch_samples: int, parts: int) -> list[int]:
    """Return the positions at which the parts of an epoch begin, and the end of the last one: `parts` + 1 numbers.

    Args:
        samples: The number of samples in the epoch.
        batch_samples: The number of samples in a batch; the last batch of the epoch may be smaller.
        parts: The number of parts.
    """
    batches = -(-samples // batch_samples)
    bounds = [0]
    for part in range(parts):
        short = batches * batch_samples - samples if batches and (batches - 1) % parts == part else 0
        bounds.append(bounds[-1] + len(range(part, batches, parts)) * batch_samples - short)
    return bounds


def place_of(position: int, batch_samples: int, bounds: list[int]) -> int:
    """Return the place, in the order of the epoch, of the batch that begins at a position.

    Args:
        position: The position of the first sample of a batch.
        batch_samples: The number of samples in a batch.
        bounds: The bounds of the parts, as `part_bounds` returns them.
    """
    parts = len(bounds) - 1
    part = min(bisect_right(bounds, position), parts) - 1
    return ((position - bounds[part]) // batch_samples * parts + part) * batch_samples
