"""The data of a run for the page: a description, events and columns from the trace and the summary."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from downpour.deploy.dashboard.columns import Array, differences, pack, smallest_unsigned
from downpour.deploy.dashboard.config import MOST_RECORDS
from downpour.deploy.dashboard.recorded_run import RecordedRun
from downpour.protos.sentences.sentence import SENTENCES, joined, sentence, to_json
from downpour.ps.core.consistency import consistency_of
from downpour.ps.trace.call_log import Call
from downpour.ps.trace.format import REASONS

FORMAT = 1
EVENT_CALLS = {
    Call.JOIN: "join",
    Call.JOIN_RESTING: "join",
    Call.LEAVE: "leave",
    Call.REST: "rest",
    Call.RESUME: "resume",
}
MOST_EVENTS = 2000
TIMED_EVENTS = ("paused", "continued")
HAVE_EVENTS = ("paused", "resumed", "changed", "checkpoint_requested")  # codes of notes that events state as well
RECOVERED = re.compile(r"resumed from checkpoint \d+: version ([\d,]+)")
MOST_COMPARED = 4096  # limit of the records that are compared to align the clocks of two shards
MICROSECONDS = 1e6
LONGEST_DURATION_S = 3600.0
SETTINGS = (
    "model dataset workers shards epochs batch_size seed mode push_every fetch_every overlap staleness_policy schedule "
    "momentum_correction optimizer learning_rate codec transport"
).split()


def page_data(run: RecordedRun, first: int = 0, most: int = MOST_RECORDS) -> bytes:
    """Return the compressed block that the page decodes (see `columns.py`).

    Args:
        run: A finished run, or the recorded part of a running one.
        first: The record of shard 0's trace to begin with.
        most: The largest number of records of each shard for the page, which bounds its memory.
    """
    traces = [np.asarray(trace[first : first + most]) for trace in run.traces]
    job = traces[0]
    origin = _origin(run)
    header = {
        "format": FORMAT,
        "kind": "recorded",
        "run": run.name,
        "settings": {name: run.settings[name] for name in SETTINGS if name in run.settings},
        "optimizer": run.config.get("optimizer", {}),
        "train_samples": run.config.get("data", {}).get("train_samples", 0),
        "summary": finite(run.summary),
        "reasons": REASONS,
        "modes": {mode: mode_facts(mode) for mode in _modes(run)},
        "window": {"first": first, "records": len(job), "of": len(run.traces[0])},
        "events": list(_events(run, job, first)),
    }
    tables: dict[str, dict[str, Array]] = {"leases": _leases(job)}
    for shard, trace in enumerate(traces):
        ahead = 0.0 if shard == 0 else clock_offset(run.traces[0], run.traces[shard]) or 0.0
        tables[f"shard{shard}"] = shard_columns(shard, trace, origin + ahead)
    return pack(header, tables)


def mode_facts(mode: str) -> dict[str, Any]:
    """Return what the page must know of a value of `--mode`, from the registry; an empty dict if it names no mode.

    The keys are `buffers`, `slack` and `law` (see `Consistency`), and `group`, the workers that an update needs.
    """
    try:
        row = consistency_of(mode)
    except ValueError:
        return {}
    return {"buffers": row.buffers, "slack": row.slack, "law": row.staleness_law, "group": row.workers_needed}


def _modes(run: RecordedRun) -> set[str]:
    """Return the values of `--mode` that a run has had."""
    changes = [change.get(when) or {} for change in run.changes for when in ("before", "after")]
    return {str(settings["mode"]) for settings in (run.settings, *changes) if "mode" in settings}


def finite(value: Any) -> Any:
    """Return a JSON value in which numbers that are not finite are strings, which every JSON parser reads."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return value


def _origin(run: RecordedRun) -> float:
    """Return when training began by the clock of shard 0's trace: `wall_s` before the last push."""
    trace = run.traces[0]
    if not len(trace):
        return 0.0
    start = float(trace["time_s"][-1]) - float(run.summary.get("wall_s") or 0.0)
    return min(start, float(trace["time_s"][0])) if run.summary.get("wall_s") else float(trace["time_s"][0])


def clock_offset(job: NDArray[np.void], other: NDArray[np.void]) -> float | None:
    """Return how far the clock of another shard's trace is ahead of shard 0's, in seconds.

    It is the median over the pushes that both traces have; None if they have none in common.
    """
    own, theirs = job[:MOST_COMPARED], other[:MOST_COMPARED]
    _, left, right = np.intersect1d(_push_keys(own), _push_keys(theirs), assume_unique=False, return_indices=True)
    return float(np.median(theirs["time_s"][right] - own["time_s"][left])) if len(left) else None


def _push_keys(records: NDArray[np.void]) -> NDArray[np.void]:
    """Return the key of every push: worker, incarnation and sequence number."""
    keys = np.empty(len(records), [("worker", "<u4"), ("incarnation", "<u4"), ("seq", "<u8")])
    for name in ("worker", "incarnation", "seq"):
        keys[name] = records[name]
    return keys


def shard_columns(shard: int, trace: NDArray[np.void], origin_s: float) -> dict[str, Array]:
    """Return the columns of a shard; those about the push itself, which is the same on every shard, only of shard 0.

    Args:
        shard: The number of the shard.
        trace: The records of the shard.
        origin_s: The time at which training began, by the clock of this trace.
    """
    return _outcome_columns(trace, origin_s) | (_push_columns(trace) if shard == 0 else {})


def _outcome_columns(trace: NDArray[np.void], origin_s: float) -> dict[str, Array]:
    """Return the columns that every shard has. Times are microseconds since training began, never decreasing."""
    times = np.maximum.accumulate(np.rint(np.maximum(trace["time_s"] - origin_s, 0.0) * MICROSECONDS))
    return {
        "time_us_d": differences(times),
        "version_d": differences(trace["version"]),
        "worker": smallest_unsigned(trace["worker"]),
        "incarnation": smallest_unsigned(trace["incarnation"]),
        "seq_d": differences(trace["seq"]),
        "staleness": smallest_unsigned(trace["staleness"]),
        "outcome": smallest_unsigned(trace["outcome"]),
    }


def _push_columns(trace: NDArray[np.void]) -> dict[str, Array]:
    """Return the columns about the push itself, which are the same on every shard."""
    return {
        "base_version_d": differences(trace["base_version"]),
        "learning_rate": trace["learning_rate"].astype("<f8"),
        "norm": trace["norm"].astype("<f4"),
        "loss": trace["loss"].astype("<f4"),
        "lease_d": differences(trace["lease"]),
        "start_d": differences(trace["start"]),
        "stop_d": differences(trace["stop"]),
        "epoch": smallest_unsigned(trace["epoch"]),
        "samples": smallest_unsigned(trace["samples"]),
        "reason": smallest_unsigned(trace["reason"]),
        "compute_us": _microseconds(trace["compute_s"]),
        "wait_us": _microseconds(trace["wait_s"]),
    }


def _microseconds(durations_s: NDArray[np.float32]) -> Array:
    """Return durations in microseconds; those that are unknown or negative are 0, and the longest is an hour."""
    known = np.clip(np.nan_to_num(durations_s.astype(float), posinf=0.0), 0.0, LONGEST_DURATION_S)
    return smallest_unsigned(np.rint(known * MICROSECONDS))


def _leases(trace: NDArray[np.void]) -> dict[str, Array]:
    """Return number, epoch and range of every lease, as far as its pushes show them."""
    numbers, where = np.unique(trace["lease"], return_inverse=True)
    start = np.full(len(numbers), np.iinfo(np.int64).max)
    stop, epoch = np.zeros(len(numbers), np.int64), np.zeros(len(numbers), np.int64)
    np.minimum.at(start, where, trace["start"].astype(np.int64))
    np.maximum.at(stop, where, trace["stop"].astype(np.int64))
    np.maximum.at(epoch, where, trace["epoch"].astype(np.int64))
    return {
        "number": smallest_unsigned(numbers),
        "epoch": smallest_unsigned(epoch),
        "start": smallest_unsigned(start),
        "stop": smallest_unsigned(stop),
    }


def _events(run: RecordedRun, trace: NDArray[np.void], first: int) -> Iterator[dict[str, Any]]:
    """Return the events other than pushes, in order. `before` is the index of the next record after an event."""
    sources = (_membership_events, _epoch_events, _version_events, _timed_events)
    found = [event for source in sources for event in source(run, trace)]
    found.sort(key=lambda event: int(event["before"]))
    yield from found[:MOST_EVENTS]
    notes = [note for note in _notes(run) if not RECOVERED.match(_text(note)) and _code(note) not in HAVE_EVENTS]
    for note in notes[:MOST_EVENTS]:
        yield {"kind": "note", "before": len(trace), "text": note}
    if run.summary:
        yield {"kind": "end", "before": len(trace), "text": str(run.summary.get("status", ""))}


def _membership_events(run: RecordedRun, trace: NDArray[np.void]) -> Iterator[dict[str, Any]]:
    """Return which workers joined, rested and left, from the calls, which are in the order of the pushes."""
    calls = np.asarray(run.calls)
    if not len(calls) or not len(trace):
        return
    pushes = np.flatnonzero(calls["call"] == Call.PUSH)
    _, in_trace, in_calls = np.intersect1d(_push_keys(trace), _push_keys(calls[pushes]), return_indices=True)
    record = np.full(len(calls) + 1, len(trace))
    record[pushes[in_calls]] = in_trace
    following = np.minimum.accumulate(record[::-1])[::-1]  # for every call, the record of the next push
    for at in np.flatnonzero(np.isin(calls["call"], [int(call) for call in EVENT_CALLS])):
        yield {
            "kind": EVENT_CALLS[Call(int(calls["call"][at]))],
            "before": int(following[at]),
            "worker": int(calls["worker"][at]),
            "incarnation": int(calls["incarnation"][at]),
        }


def _version_events(run: RecordedRun, trace: NDArray[np.void]) -> Iterator[dict[str, Any]]:
    """Return the changes of the settings, the checkpoints and the recoveries, after the pushes of their version."""

    def after(version: Any) -> int:
        return int(np.searchsorted(trace["version"], int(version), side="right"))

    for change in run.changes:
        if change.get("version") is None:
            continue  # it did not take effect
        before, new = change.get("before") or {}, change.get("after") or {}
        text = to_json(joined((_setting(name, value, before) for name, value in new.items()), "several_settings"))
        event = {"kind": "change", "before": after(change["version"]), "text": text}
        yield event | ({"was": str(before["mode"]), "mode": str(new["mode"])} if "mode" in new else {})
    for number, version in run.summary.get("checkpoint_versions", []):
        yield {"kind": "checkpoint", "before": after(version), "number": int(number), "version": int(version)}
    for note in _notes(run):
        if found := RECOVERED.match(_text(note)):
            yield {"kind": "recovery", "before": after(found[1].replace(",", "")), "text": note}


def _setting(name: str, value: Any, before: Mapping[str, Any]) -> str:
    shown = sentence(f"name_{name}") if f"name_{name}" in SENTENCES else name
    return sentence("setting", name=shown, value=str(value), before=str(before.get(name)))


def _timed_events(run: RecordedRun, trace: NDArray[np.void]) -> Iterator[dict[str, Any]]:
    """Return when the job was paused and when it continued, after the pushes up to that time."""
    for event in run.summary.get("events", []):
        if event.get("kind") in TIMED_EVENTS:
            seconds = float(event.get("elapsed_s") or 0.0)
            before = int(np.searchsorted(trace["time_s"], _origin(run) + seconds, side="right"))
            yield {"kind": event["kind"], "before": before, "seconds": seconds}


def _notes(run: RecordedRun) -> list[Any]:
    """Return the notes as the page shows them: with codes, or as texts where the run has no codes."""
    notes, coded = run.summary.get("notes", []), run.summary.get("sentences", [])
    return list(coded) if len(coded) == len(notes) else [str(note) for note in notes]


def _text(note: Any) -> str:
    return str(note.get("text", "")) if isinstance(note, dict) else str(note)


def _code(note: Any) -> str:
    return str(note.get("code", "")) if isinstance(note, dict) else ""


def _epoch_events(run: RecordedRun, trace: NDArray[np.void]) -> Iterator[dict[str, Any]]:
    """Return the end of every epoch, with its losses and accuracies."""
    first = 1 if run.summary.get("schema_version", 1) > 1 else 0
    for entry in run.summary.get("history", []):
        epoch = entry["epoch"] - first
        rows = np.flatnonzero(trace["epoch"] == epoch)
        if len(rows):
            yield {"kind": "epoch", "before": int(rows[-1]) + 1, **finite(entry), "epoch": epoch}
