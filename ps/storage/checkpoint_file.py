"""Checkpoints: the complete state of a job in one file, which is written atomically.

A file holds flat vectors in safetensors format, independently of the number of shards: `trained` (`float32[n]`),
`state` (`float32[m]`, if there is any) and one `slot.NAME` (`float32[n]`) for each slot of the optimizer. The
header's metadata holds everything else as JSON, and a SHA-256 of every vector and of that JSON. The file is
written under a temporary name, flushed to the disk and renamed; then its folder is flushed. A file under its final
name is therefore complete, unless the disk itself lost data, which the checksums detect.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, ValidationError
from safetensors import SafetensorError, safe_open

from downpour.protos.logs import reason_of
from downpour.protos.sentences.sentence import sentence
from downpour.ps.storage.atomic_file import atomic_write
from downpour.ps.storage.safetensors_file import write_tensors

FORMAT = "downpour checkpoint 2"
TRAINED, STATE, SLOT = "trained", "state", "slot."
_NAME = re.compile(r"checkpoint-(\d{8})\.safetensors")

Vector = NDArray[np.float32]


class CheckpointError(Exception):
    """A file is not a usable checkpoint. The message says why."""


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True, ser_json_inf_nan="constants")


class TensorFacts(_Facts):
    """The name, the shape and the section of one tensor of the layout."""

    name: str
    shape: tuple[NonNegativeInt, ...]
    section: int = Field(ge=0, le=1)


class DataFacts(_Facts):
    """The name, the sizes and the checksum of the job's dataset."""

    name: str
    checksum: str
    train_samples: int = Field(gt=0)
    validation_samples: NonNegativeInt
    test_samples: NonNegativeInt
    numeric_targets: bool = False


class LedgerFacts(_Facts):
    """The unused samples: the listed ranges `(epoch, start, stop)`, and all positions from `(epoch, position)` on."""

    unused: tuple[tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt], ...]
    epoch: NonNegativeInt
    position: NonNegativeInt


class ShardFacts(_Facts):
    """The state of a shard apart from its vectors; `updates` and `gradients` have one number for each optimizer."""

    version: NonNegativeInt
    updates: tuple[NonNegativeInt, ...]
    time_s: NonNegativeFloat
    records: NonNegativeInt
    gradients: tuple[NonNegativeInt, ...] = ()


class EvaluationFacts(_Facts):
    """The result of an evaluation on one split of the data."""

    samples: NonNegativeInt
    loss: float
    accuracy: float


class WorkerFacts(_Facts):
    """Totals of the pushes of one worker. `staleness` is a histogram."""

    updates: NonNegativeInt
    samples: NonNegativeInt
    dropped: NonNegativeInt
    loss: float
    staleness: dict[NonNegativeInt, NonNegativeInt]


class EpochFacts(_Facts):
    """Sums over the samples of one epoch."""

    samples: NonNegativeInt
    loss_sum: float
    correct: NonNegativeInt


class MetricsFacts(_Facts):
    """Totals of all pushes so far."""

    updates: NonNegativeInt
    samples: NonNegativeInt
    dropped: dict[str, NonNegativeInt]
    duplicates: NonNegativeInt
    workers: dict[NonNegativeInt, WorkerFacts]
    epochs: dict[NonNegativeInt, EpochFacts]
    since: NonNegativeInt = 0


class JobFacts(_Facts):
    """The state of a job apart from its vectors; `work` is that of a script's `fit`, a `FitState` in base64."""

    job: str
    generation: NonNegativeInt
    optimizer: str
    seed: NonNegativeInt
    batch_size: int = Field(gt=0)
    layout: tuple[TensorFacts, ...]
    data: DataFacts
    ledger: LedgerFacts
    incarnations: dict[NonNegativeInt, NonNegativeInt]
    shards: tuple[ShardFacts, ...] = Field(min_length=1)
    closed_epochs: NonNegativeInt
    evaluations: dict[NonNegativeInt, EvaluationFacts]
    partial_pushes: NonNegativeInt
    elapsed_s: NonNegativeFloat
    metrics: MetricsFacts
    work: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """The state of a job at one consistent cut.

    Attributes:
        number: The number of the checkpoint; newer ones have higher numbers.
        vectors: The vectors by name, each `float32[...]` and read-only.
        facts: Everything else.
    """

    number: int
    vectors: Mapping[str, Vector]
    facts: JobFacts

    @property
    def slots(self) -> dict[str, Vector]:
        """The slots of the optimizer by name."""
        return {name.removeprefix(SLOT): v for name, v in self.vectors.items() if name.startswith(SLOT)}

    @property
    def nbytes(self) -> int:
        """The size of all vectors, in bytes."""
        return sum(vector.nbytes for vector in self.vectors.values())


def path_of(folder: Path, number: int) -> Path:
    """Return the path of the checkpoint with that number."""
    return folder / f"checkpoint-{number:08d}.safetensors"


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint to `folder`, which is created if it does not exist, and return its path.

    Raises:
        OSError: The disk is full, read-only or broken. No file of that name has changed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = path_of(folder, checkpoint.number)
    facts = checkpoint.facts.model_dump_json()
    sums = {name: _sum(vector) for name, vector in checkpoint.vectors.items()}
    metadata = {"format": FORMAT, "facts": facts, "sha256": json.dumps({**sums, "facts": _sum(facts.encode())})}
    with atomic_write(path, durable=True) as place:
        write_tensors(place, checkpoint.vectors, metadata)
    return path


def load(path: Path) -> Checkpoint:
    """Read and verify a checkpoint.

    Raises:
        CheckpointError: The file is incomplete or damaged, was written by another program, or cannot be read.
    """
    name = _NAME.fullmatch(path.name)
    if name is None:
        raise CheckpointError(f"a checkpoint must be called checkpoint-NNNNNNNN.safetensors; received {path.name}.")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            facts, sums = _metadata(path, metadata)
            vectors = {key: file.get_tensor(key) for key in file.keys()}
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path.name} must be a complete safetensors file; it is not: {reason_of(error)}"
        ) from error
    for key, vector in vectors.items():
        if vector.dtype != np.float32 or vector.ndim != 1 or sums.get(key) != _sum(vector):
            raise CheckpointError(f"{path.name} is damaged: the checksum of {key!r} does not match.")
    if set(vectors) | {"facts"} != set(sums):
        raise CheckpointError(f"{path.name} must hold {sorted(sums)}; it holds {sorted(vectors)}.")
    _check_sizes(path, facts, vectors)
    return Checkpoint(int(name[1]), vectors, facts)


def numbers(folder: Path) -> list[int]:
    """Return the numbers of the files that have names of checkpoints, newest first."""
    try:
        names = [_NAME.fullmatch(entry.name) for entry in folder.iterdir()]
    except OSError:
        return []
    return sorted((int(name[1]) for name in names if name), reverse=True)


def newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest usable checkpoint, and for each newer one the reason why it is not usable."""
    refused: list[str] = []
    for number in numbers(folder):
        try:
            return load(path_of(folder, number)), refused
        except CheckpointError as error:
            refused.append(sentence("checkpoint_refused", reason=str(error)))
    return None, refused


def prune(folder: Path, keep: int) -> None:
    """Remove all checkpoints but the newest `keep`, and all temporary files."""
    for number in numbers(folder)[keep:]:
        path_of(folder, number).unlink(missing_ok=True)
    for part in folder.glob(".checkpoint-*.part"):
        part.unlink(missing_ok=True)


def _metadata(path: Path, metadata: Mapping[str, str]) -> tuple[JobFacts, dict[str, str]]:
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path.name} must have been written by this program ({FORMAT!r}); its format: {metadata.get('format')!r}."
        )
    text = metadata.get("facts", "")
    try:
        sums = json.loads(metadata.get("sha256", ""))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path.name} is damaged: its checksums cannot be read ({error}).") from error
    if not isinstance(sums, dict) or sums.get("facts") != _sum(text.encode()):
        raise CheckpointError(f"{path.name} is damaged: the checksum of its facts does not match.")
    try:
        return JobFacts.model_validate_json(text), sums
    except ValidationError as error:
        raise CheckpointError(f"{path.name} does not hold the facts of a job: {reason_of(error)}") from error


def _check_sizes(path: Path, facts: JobFacts, vectors: Mapping[str, Vector]) -> None:
    sizes = [0, 0]
    for tensor in facts.layout:
        sizes[tensor.section] += int(np.prod(tensor.shape, dtype=object))
    for name, vector in vectors.items():
        if name not in (TRAINED, STATE) and not name.startswith(SLOT):
            raise CheckpointError(f"{path.name} holds a vector {name!r}, which no checkpoint has.")
        if len(vector) != sizes[name == STATE]:
            raise CheckpointError(
                f"{name!r} in {path.name} must have {sizes[name == STATE]:,} elements, as its layout says; "
                f"it has {len(vector):,}."
            )
    if TRAINED not in vectors or (sizes[1] > 0) != (STATE in vectors):
        raise CheckpointError(
            f"{path.name} must hold the vectors that its layout needs, {TRAINED!r} and perhaps {STATE!r}; "
            f"it holds {sorted(vectors)}."
        )


def _sum(content: bytes | Vector) -> str:
    data = content if isinstance(content, bytes) else np.ascontiguousarray(content).data.cast("B")
    return hashlib.sha256(data).hexdigest()
