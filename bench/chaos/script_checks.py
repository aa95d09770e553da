"""Checks of a finished chaos round of a script: weights, traces, history, and the files of callbacks."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import h5py
import numpy as np
from numpy.typing import NDArray

from downpour.bench.chaos.checks import Counts, Findings, update_faults
from downpour.bench.chaos.history import faults_of
from downpour.bench.chaos.signed_gradients import BATCH, CALLS, EPOCHS, RATE, applied_counts
from downpour.protos.logs import reason_of

Weights = NDArray[np.float32]


def faults_of_script(run: Path, out: Path, shards: int) -> Findings:
    """Check the job of fit_script.py.

    Args:
        run: The run directory.
        out: The folder with the files of the script.
        shards: The number of shards.
    """
    try:
        partial = int(json.loads((run / "summary.json").read_text())["partial_pushes"])
        weights = np.load(out / f"weights-{CALLS - 1}-0.npy")
        counts = applied_counts(weights, shards, CALLS * EPOCHS)
    except (OSError, ValueError, KeyError) as error:
        return Findings([f"a script must leave its files whole; {reason_of(error)}"])
    faults = list(update_faults(counts, BATCH, partial, in_order=False))
    for shard in range(shards):
        trace = np.load(run / ("trace.npy" if shard == 0 else f"trace-shard{shard}.npy"))
        calls = _numbers(trace) // EPOCHS
        found = [fault for call in range(CALLS) for fault in faults_of(trace[calls == call])]  # versions begin anew
        faults += [f"shard {shard}: {fault}" for fault in (*found, *_trace_faults(trace, counts[shard]))]
    faults += [*_report_faults(out, weights), *_file_faults(out, counts, shards), *_model_faults(run, weights)]
    return Findings(faults, counts.shape[1] * counts.shape[2], partial)


def _numbers(trace: NDArray[np.void]) -> NDArray[np.int64]:
    """Return the epoch of each record, counted over all calls of `fit`, as its learning rate says."""
    return np.rint(np.log2(trace["learning_rate"] / RATE) / 3).astype(np.int64)


def _trace_faults(trace: NDArray[np.void], counts: Counts) -> Iterator[str]:
    """Yield a violation unless the trace has as many positions of each epoch as the weights have samples of it."""
    recorded = np.zeros(counts.shape, np.int64)
    applied = trace[trace["outcome"] == 0]
    for record, number in zip(applied, _numbers(applied), strict=True):
        recorded[number, record["start"] : record["stop"]] += 1
    if recorded.max() > 1:
        yield f"the trace has {(recorded > 1).sum()} positions more than once"
    if not np.array_equal(recorded.sum(axis=1), counts.sum(axis=1)):
        yield f"the trace has {recorded.sum(axis=1)} samples by epoch, and the weights {counts.sum(axis=1)}"


def _report_faults(out: Path, weights: Weights) -> Iterator[str]:
    """Yield a violation unless the workers agree, and have been called for each epoch of each call of `fit` once."""
    every = list(range(EPOCHS))
    first = json.loads((out / "report-0.json").read_text())
    samples = weights.size
    for path in sorted(out.glob("report-*.json")):
        reports, rank = json.loads(path.read_text()), path.stem.removeprefix("report-")
        for call, report in enumerate(reports):
            where = f"worker {rank}, call {call}"
            for name in ("epochs", "begun", "ended"):
                if report[name] != every:
                    yield f"{where}: {name} must be {every}; they are {report[name]}"
            lengths = {name: len(values) for name, values in report["history"].items()}
            if set(lengths.values()) != {EPOCHS} or set(lengths) != {"loss", "val_loss", "learning_rate"}:
                yield f"{where}: a history must have {EPOCHS} values of each metric; it has {lengths}"
            if report["history"] != first[call]["history"]:
                yield f"{where}: the history must be that of worker 0"
            if report["iterations"] != first[call]["iterations"]:
                yield f"{where}: iterations must be those of worker 0; they are {report['iterations']}"
        if not np.array_equal(np.load(out / f"weights-{CALLS - 1}-{rank}.npy"), weights):
            yield f"worker {rank}: the weights must be those of worker 0; they differ in some of {samples}"


def _file_faults(out: Path, counts: Counts, shards: int) -> Iterator[str]:
    """Yield a violation unless the files of callbacks have every epoch, and the weights at its end."""
    for call in range(CALLS):
        rows = list(csv.DictReader(io.StringIO((out / f"log-{call}.csv").read_text())))
        if [row["epoch"] for row in rows] != [str(epoch) for epoch in range(EPOCHS)]:
            yield f"log-{call}.csv must have one row for each epoch; it has {[row['epoch'] for row in rows]}"
        for epoch in range(EPOCHS):
            name, complete = f"call-{call}-{epoch + 1}.weights.h5", EPOCHS * call + epoch + 1
            try:
                saved = applied_counts(_weights_of(out / name), shards, CALLS * EPOCHS)
            except (OSError, ValueError) as error:
                yield f"{name} must contain the weights at the end of its epoch; {reason_of(error)}"
                continue
            if not np.array_equal(saved[:, :complete], counts[:, :complete]) or saved[:, complete:].any():
                by_epoch = saved.sum(axis=(0, 2))
                yield f"{name} must contain the updates of {complete} epochs; its samples by epoch are {by_epoch}"


def _model_faults(run: Path, weights: Weights) -> Iterator[str]:
    """Yield a violation unless the model of the run has the weights at the end."""
    try:
        with zipfile.ZipFile(run / "model.keras") as file:
            saved = _weights_of(io.BytesIO(file.read("model.weights.h5")))
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        yield f"model.keras must be whole; {reason_of(error)}"
        return
    if not np.array_equal(saved, weights):
        yield "model.keras must contain the weights at the end"


def _weights_of(file: Path | IO[bytes]) -> Weights:
    """Return the tables in a file of weights, `float32[slices * samples]`.

    Raises:
        OSError: The file does not exist, or is damaged.
    """
    found: dict[str, Weights] = {}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and "optimizer" not in name and item.size > 1:
            found[name] = np.asarray(item, np.float32).ravel()

    with h5py.File(file) as opened:
        opened.visititems(visit)
    if not found:
        raise OSError("there are no weights in it")
    return np.concatenate([found[name] for name in sorted(found, key=lambda name: (len(name), name))])
