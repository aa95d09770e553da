"""Reads the recorded run of a script, and rejects runs that cannot be replayed with the reason."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from downpour.bench.replay.record import CannotReplay
from downpour.bench.replay.shard_replay import names_of
from downpour.deploy.scripts.script_record import RECORD, ScriptRecord, sha256_of
from downpour.deploy.scripts.script_settings import RunSettings
from downpour.protos.logs import reason_of
from downpour.ps.core.push import Outcome
from downpour.ps.storage.run_directory import read_changes
from downpour.ps.trace import call_log as calls
from downpour.ps.trace import format as trace
from downpour.ps.trace.call_log import Call
from downpour.ps.trace.files import per_shard


@dataclass(frozen=True)
class RecordedScript:
    """The content of the run directory of a script.

    Attributes:
        path: The directory.
        settings: The settings of the cluster.
        record: The script as it was started.
        summary: The summary of the run.
        traces: The trace of each shard.
        calls: The calls on each shard, in all calls of `fit`.
        facts: The versions that the workers reported.
    """

    path: Path
    settings: RunSettings
    record: ScriptRecord
    summary: dict[str, Any]
    traces: list[np.ndarray]
    calls: list[np.ndarray]
    facts: list[dict[str, str]]

    @property
    def fits(self) -> int:
        """The number of calls of `fit`."""
        return int(np.count_nonzero(self.calls[0]["call"] == Call.BEGIN))


def is_script_run(path: Path) -> bool:
    """Return whether a run directory is that of a script."""
    try:
        return bool(json.loads((path / "config.json").read_text())["settings"]["script"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def read_script_run(path: Path, whole: bool = True) -> RecordedScript:
    """Read the files of a script's run.

    Args:
        path: The run directory.
        whole: Whether the run must have ended by itself.

    Raises:
        CannotReplay: The run cannot be replayed, or a file is missing or damaged.
    """
    # The libraries that read the files raise exceptions of nearly any type on damaged ones.
    try:
        return _read(path.resolve(), whole)
    except CannotReplay:
        raise
    except Exception as error:
        raise CannotReplay(
            f"RUN_DIR must hold the complete files of a run; {path}: {reason_of(error)}. Copy it again."
        ) from error


def _read(path: Path, whole: bool) -> RecordedScript:
    try:
        config, summary = (json.loads((path / name).read_text()) for name in ("config.json", "summary.json"))
        saved = config["settings"]
        facts = [dict(group["facts"]) for group in config["workers"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CannotReplay(f"RUN_DIR must be the directory of a run that has ended; {reason_of(error)}") from error
    record = _script_record(path)
    own = {"threads": record.threads, "gpus_per_worker": record.gpus_per_worker}
    try:
        given = {name: saved[name] for name in RunSettings.model_fields if name in saved and name != "resume"}
        settings = RunSettings(**{**given, **own})
    except ValidationError as error:
        raise CannotReplay(f"{path / 'config.json'} must contain the settings of a run: {reason_of(error)}") from error
    shards = range(settings.shards)
    if settings.record == "off":
        raise CannotReplay("a run to be replayed must be recorded; this one ran with --record off.")
    recorded = RecordedScript(
        path, settings, record, summary,
        [_records(path / per_shard("trace", shard), trace.DTYPE) for shard in shards],
        [_records(path / per_shard("calls", shard), calls.DTYPE) for shard in shards],
        facts,
    )  # fmt: skip
    reason = next(_reasons(recorded, whole), None)
    if reason:
        raise CannotReplay(f"a run to be replayed {reason}")
    return recorded


def _script_record(path: Path) -> ScriptRecord:
    try:
        record = ScriptRecord.model_validate_json((path / RECORD).read_text())
    except OSError as error:
        raise CannotReplay(
            f"a run to be replayed must have been started by `downpour run` on one machine; {path} has no {RECORD}."
        ) from error
    except ValidationError as error:
        raise CannotReplay(f"{path / RECORD} must contain the command of a script: {reason_of(error)}") from error
    if not os.path.isdir(record.folder):
        raise CannotReplay(f"the folder in which the script ran must exist: {record.folder} does not.")
    if record.script[0] != "-m":
        place = Path(record.folder) / record.script[0]
        found = sha256_of([str(place)])
        if not found:
            raise CannotReplay(f"the script must be where it was: {place} cannot be read.")
        if found != record.sha256:
            raise CannotReplay(f"the script must be the one of the run: {place} has changed since.")
    return record


def _records(path: Path, dtype: np.dtype[Any]) -> np.ndarray:
    try:
        records: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise CannotReplay(
            f"a run to be replayed must be recorded; {reason_of(error)}. With --record auto, models with more than "
            f"{calls.LARGEST_RECORDED:,} weights are not: train with --record on. A run that was resumed, or whose "
            "servers died, has no complete record."
        ) from error
    if records.dtype != dtype or records.ndim != 1:
        raise CannotReplay(f"{path} must contain records of {dtype.names}; received {records.dtype.names}.")
    return records


def _reasons(recorded: RecordedScript, whole: bool) -> Iterator[str]:
    """Yield the reasons why a run cannot be replayed: what must hold and what was received."""
    status, generation = recorded.summary.get("status"), recorded.summary.get("generation", 1)
    if whole and status != "ended":
        yield f"must have ended by itself; this one is {status}. Use --until VERSION to obtain earlier weights."
    if generation != recorded.fits:
        yield (
            "must not be resumed; this one was resumed, or one of its servers died: "
            f"{generation} generations of the servers for {recorded.fits} calls of fit."
        )
    if read_changes(recorded.path):
        yield "must keep its settings; those of this one were changed while it ran."
    leases = recorded.calls[0]["seq"][recorded.calls[0]["call"] == Call.LEASE].tolist()
    if any(calls.epoch_of(seq) == calls.NO_EPOCH for seq in leases):
        yield (
            "must lease samples in epochs of fit; this one leases them in a loop of downpour.training, whose passes "
            "are not recorded."
        )
    for each in segments(recorded.calls[0]):
        leaves, pushes = (np.flatnonzero(each["call"] == call) for call in (Call.LEAVE, Call.PUSH))
        if len(leaves) and len(pushes) and leaves[0] < pushes[-1]:
            yield f"must keep its workers; worker {each['worker'][leaves[0]]} has left it."
    for worker in sorted({worker for each in segments(recorded.calls[0]) for worker in _joined_again(each)}):
        yield (
            f"must keep its workers; worker {worker} was started again, or lost its session, and what it did before "
            "is not recorded."
        )


def _joined_again(segment: np.ndarray) -> list[int]:
    """Return the workers that have joined a call of `fit` more than once."""
    joins = segment[(segment["call"] == Call.JOIN) | (segment["call"] == Call.JOIN_RESTING)]
    return [worker for worker, count in Counter(joins["worker"].tolist()).items() if count > 1]


def segments(records: np.ndarray) -> list[np.ndarray]:
    """Return the calls of each call of `fit`."""
    return [part for part in np.split(records, np.flatnonzero(records["call"] == Call.BEGIN)) if len(part)]


def marked_calls(recorded: RecordedScript, fit: int, until: int) -> list[np.ndarray]:
    """Return the calls of each shard, with a mark where the weights of a version of shard 0 are to be written.

    The weights of the other shards are those after the last push that this version contains.

    Args:
        recorded: The run.
        fit: The number of the call of `fit`, from 1.
        until: The version of shard 0 in this call.

    Raises:
        CannotReplay: There is no such call, or shard 0 never had this version in it.
    """
    if not 1 <= fit <= recorded.fits:
        raise CannotReplay(f"--fit must be a call of fit of the run, 1 to {recorded.fits}; received {fit}.")
    versions = [_versions(records, segments(part)[fit - 1]) for records, part in _pairs(recorded)]
    newest = max(versions[0].values(), default=0)
    if until > newest:
        raise CannotReplay(f"--until must be a version that this call of fit had, 0 to {newest:,}; received {until:,}.")
    contained = {name for name, version in versions[0].items() if version <= until}
    marked = []
    for own, (_, part) in zip(versions, _pairs(recorded), strict=True):
        begin = int(np.flatnonzero(part["call"] == Call.BEGIN)[fit - 1])
        segment = segments(part)[fit - 1]
        pushes = segment["call"] == Call.PUSH
        places = [at for at, name in enumerate(names_of(segment)) if pushes[at] and name in contained]
        before_first = int(np.flatnonzero(pushes)[0]) if pushes.any() else len(segment)
        at = begin + (max(places) + 1 if places else before_first)
        mark = np.zeros(1, calls.DTYPE)
        mark["call"], mark["seq"] = Call.MARK, max((own.get(name, 0) for name in contained), default=0)
        marked.append(np.concatenate([part[:at], mark, part[at:]]))
    return marked


def _pairs(recorded: RecordedScript) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(zip(recorded.traces, recorded.calls, strict=True))


def _versions(records: np.ndarray, segment: np.ndarray) -> dict[tuple[int, int, int], int]:
    """Return the version that each applied push of a call of `fit` made on a shard."""
    own = set(names_of(segment[segment["call"] == Call.PUSH]))
    applied = records[records["outcome"] == int(Outcome.APPLIED)]
    pairs = zip(names_of(applied), applied["version"].tolist(), strict=True)
    return {name: version for name, version in pairs if name in own}
