"""The run directory of an asynchronous job in virtual time: traces, calls, settings and summary."""

from __future__ import annotations

import heapq
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from downpour.ps.trace.call_log import DTYPE as CALL_DTYPE
from downpour.ps.trace.call_log import Call
from downpour.ps.trace.files import per_shard
from downpour.ps.trace.format import DTYPE, REASONS

BATCH, LEASE = 32, 320
COMPUTING = 0.8  # share of a step in which its worker computes; the rest is transfer
CLOCKS_S = (31.25, 28.5, 40.0)  # of the shards when training begins: each counts from its own start


def write_run(
    folder: Path, pushes: int = 400, workers: int = 3, shards: int = 2, seed: int = 0, **settings: Any
) -> np.ndarray:
    """Write a run directory; return the trace of shard 0. Every 37th push is dropped; the last worker joins late."""
    folder.mkdir(parents=True, exist_ok=True)
    trace, calls = simulate(pushes, workers, np.random.default_rng(seed))
    for shard in range(shards):
        own = trace.copy()
        own["time_s"] += CLOCKS_S[shard % len(CLOCKS_S)] + 1e-4 * shard
        np.save(folder / per_shard("trace", shard), own)
        np.save(folder / per_shard("calls", shard), calls)
    given = {
        "model": "sigmoid100", "dataset": "mnist", "mode": "async", "optimizer": "sgd", "batch_size": BATCH,
        "seed": seed, "workers": workers, "shards": shards, "epochs": int(trace["epoch"].max()) + 1,
        "staleness_policy": "none", "push_every": 1, "fetch_every": None, **settings,
    }  # fmt: skip
    config = {
        "settings": given,
        "optimizer": {"name": given["optimizer"], "learning_rate": 0.1},
        "data": {"name": "mnist", "train_samples": LEASE * 20},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "summary.json").write_text(json.dumps(summary_of(trace, given)))
    result: np.ndarray = np.load(folder / "trace.npy")
    return result


def simulate(pushes: int, workers: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Simulate workers with exponential steps, mean 10 ms, whose pushes return the weights."""
    trace = np.zeros(pushes, DTYPE)
    late = workers - 1 if workers > 1 else -1
    calls = [(0, Call.BEGIN, 0, 0), *((0, Call.JOIN, worker, 1) for worker in range(workers) if worker != late)]
    due = [(random.exponential(0.01), worker) for worker in range(workers) if worker != late]
    heapq.heapify(due)
    began = dict.fromkeys(range(workers), 0.0)
    base, seq, version = dict.fromkeys(range(workers), 0), Counter[int](), 0
    for row, record in enumerate(trace):
        if row == pushes // 4 and late >= 0:
            calls.append((0, Call.JOIN, late, 1))
            base[late], began[late] = version, due[0][0]
            heapq.heappush(due, (due[0][0] + 1e-3, late))
        now, worker = heapq.heappop(due)
        seq[worker] += 1
        dropped = row % 37 == 36
        staleness = version - base[worker]
        version += not dropped
        position = row * BATCH % (LEASE * 20)
        for name, value in {
            "time_s": now, "version": version, "seq": seq[worker], "base_version": base[worker], "staleness": staleness,
            "lease": 1 + row * BATCH // LEASE, "start": position, "stop": position + BATCH, "samples": BATCH,
            "learning_rate": 0.0 if dropped else 0.1 / max(1, staleness), "norm": random.exponential(),
            "loss": 2.3 * np.exp(-row / pushes * 3) + random.normal() * 0.05, "worker": worker, "incarnation": 1,
            "epoch": row * BATCH // (LEASE * 20), "outcome": 2 if dropped else 0,
            "reason": REASONS.index("stale") if dropped else 0, "compute_s": COMPUTING * (now - began[worker]),
        }.items():  # fmt: skip
            record[name] = value
        calls.append((seq[worker], Call.PUSH, worker, 1))
        base[worker], began[worker] = version, now
        heapq.heappush(due, (now + random.exponential(0.01), worker))
    calls += [(0, Call.LEAVE, worker, 1) for worker in range(workers)]
    return trace, np.array(calls, CALL_DTYPE)


def summary_of(trace: np.ndarray, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the content of `summary.json` for such a trace."""
    applied = trace[trace["outcome"] == 0]
    wall_s = float(trace["time_s"][-1])
    return {
        "status": "ended",
        "updates": len(applied),
        "samples": int(trace["samples"].sum()),
        "samples_per_s": float(trace["samples"].sum() / wall_s),
        "wall_s": wall_s,
        "dropped": len(trace) - len(applied),
        "dropped_by_reason": {"stale": len(trace) - len(applied)},
        "train_loss": 0.25,
        "test_accuracy": 0.9236,
        "val_accuracy": 0.944,
        "bytes_pushed": 1133494560,
        "bytes_pulled": 1135720840,
        "staleness": {"mean": float(applied["staleness"].mean()), "max": int(applied["staleness"].max())},
        "history": [
            {"epoch": epoch, "train_loss": 0.5, "train_accuracy": 0.85, "val_loss": 0.3, "val_accuracy": 0.9}
            for epoch in range(settings["epochs"])
        ],
        "notes": [],
    }
