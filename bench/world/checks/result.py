"""The checks at the end of a simulated job: its exit code, its summary, its model and its traces agree."""

from __future__ import annotations

import io
import json
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from downpour.bench.chaos.history import faults_of
from downpour.bench.world.checks.integer_weights import applications, initial_weights, is_whole, weights_in
from downpour.bench.world.checks.push_replies import PushReplies
from downpour.bench.world.checks.traits import JobTraits
from downpour.bench.world.system.process import VirtualProcess
from downpour.bench.world.system.scheduler import World
from downpour.ps.config import ServerSettings
from downpour.ps.trace.files import per_shard
from downpour.ps.trace.format import DTYPE

# Notes about missing records: the disk has lost them, or the shard could not send them.
LACKING = re.compile(r"trace of shard (\d+) lacks|shard (\d+) (?:was lost after|has not confirmed) the end")
RECOVERED = re.compile(r"no heartbeat|no progress|fenced|resumed|starts over|was lost|cannot|could not")
MOST_ALIKE = 15  # notes that differ in numbers only: workers leave and join


@dataclass(frozen=True)
class JobEnd:
    """What is known of the end of a job, apart from its files.

    Attributes:
        may_fail: Whether the job may have failed, because the disk failed or the coordinator was asked to end.
        undisturbed: Whether the job had no faults.
        disk_failed: Whether the disk has been full, read-only or damaged.
        unwritable: Whether the disk could not be written when the coordinator ended.
        killed_after: Whether a coordinator was killed after the end, so that another one found the ended run.
        has_checkpoint: Whether there is a checkpoint of some updates.
    """

    may_fail: bool = False
    undisturbed: bool = False
    disk_failed: bool = False
    unwritable: bool = False
    killed_after: bool = False
    has_checkpoint: bool = False


class ResultCheck:
    """Checks the files and the exit code of a job that has ended."""

    def __init__(
        self, world: World, samples: int, settings: ServerSettings, traits: JobTraits, replies: PushReplies
    ) -> None:
        """Create the check of the result of one job.

        Args:
            world: The world that receives the violations.
            samples: The number of samples in an epoch.
            settings: The settings of the job.
            traits: The properties of the job.
            replies: The replies that its workers have received.
        """
        self._world, self._samples, self._settings, self._traits = world, samples, settings, traits
        self._replies = replies

    def check(self, status: int | None, last: VirtualProcess, end: JobEnd) -> None:
        """Check the files of a job that has ended, after its machine has lost power.

        Args:
            status: The exit code of the coordinator.
            last: The last process of the coordinator, on whose disk the run directory is.
            end: What else is known of the end of the job.
        """
        world, disk = self._world, last.machine.disk
        if status == 0 and not end.unwritable:  # what the job has saved must be on the disk
            disk.lose_power()
        files = disk.names
        summary = _json(files["/run/summary.json"].content) if "/run/summary.json" in files else {}
        if status == 0 and summary.get("status") not in ("ended", "interrupted") and not end.may_fail:
            world.problem(f"the coordinator exited with 0, and the summary says {summary.get('status')!r}")
        if status not in (0, None) and not end.may_fail:
            world.problem(f"the job failed: {summary.get('notes', [])[-3:]}")
        trained = summary.get("generation") in self._replies.applied or end.has_checkpoint
        if status == 0 and trained and "/run/model.keras" not in files:
            world.problem("the coordinator exited with 0, and no model is saved")
        self._check_notes(summary)
        if status == 0 and end.undisturbed:
            self._check_undisturbed(summary, end)
        if summary.get("status") == "ended" and not end.unwritable:
            self._check_result(summary, files, end)
        for name in sorted(files):
            if "trace" in name or name.endswith("model.keras"):
                world.digest = zlib.crc32(bytes(files[name].content), world.digest)

    def _check_undisturbed(self, summary: dict[str, Any], end: JobEnd) -> None:
        """Check that a job without faults has recovered from nothing, and has a checkpoint."""
        if self._settings.checkpoint_every != "off" and not end.has_checkpoint:
            self._world.problem("a job without faults has written no checkpoint")
        found = [note for note in summary.get("notes", []) if RECOVERED.search(note)]
        if found or summary.get("generation") != 1:
            self._world.problem(f"a job without faults has generation {summary.get('generation')} and notes {found}")

    def _check_notes(self, summary: dict[str, Any]) -> None:
        """Check that no note repeats itself, apart from the numbers and names of files in it."""
        alike = Counter(re.sub(r"[0-9a-f]{8}|[0-9]+", "#", note) for note in summary.get("notes", []))
        for note, count in alike.items():
            if count > MOST_ALIKE:
                self._world.problem(f"there are {count} notes like: {note}")

    def _check_result(self, summary: dict[str, Any], files: Any, end: JobEnd) -> None:
        world, shards = self._world, self._settings.shards
        if "/run/model.keras" not in files:
            world.problem("the job has ended, and there is no model")
            return
        model = bytes(files["/run/model.keras"].content)
        if not is_whole(model):
            world.problem("the job has ended, and its model is incomplete")
            return
        weights = weights_in(model, shards * self._samples)
        noted = [found for note in summary.get("notes", []) if (found := LACKING.search(note))]
        admitted = {int(found[1] or found[2]) for found in noted}
        if not end.disk_failed and any(found[1] for found in noted):
            world.problem("a trace lacks records, and the disk has never failed")
        if end.killed_after:  # this may lose the last records of the other shards
            admitted |= set(range(1, shards))
        try:
            traces = [self._trace(files, shard, lacking=shard in admitted) for shard in range(shards)]
        except (KeyError, ValueError, EOFError) as error:
            if not end.may_fail:
                world.problem(f"the job has ended, and a trace cannot be read: {error!r}")
            return
        self._check_traces(traces, admitted, summary)
        if self._traits.sums:
            counts = applications(weights, shards)
            for shard, trace in enumerate(traces):
                if shard not in admitted and not np.array_equal(self._recorded(trace), counts[shard]):
                    world.problem(f"shard {shard}: the trace and the model contain different updates")
        elif not self._traits.replicas and not self._traits.corrects:
            for shard, trace in enumerate(traces):
                part = weights[shard * self._samples : (shard + 1) * self._samples]
                if shard not in admitted and not np.allclose(part, self._expected(trace, shard), atol=1e-3):
                    world.problem(f"shard {shard}: the trace and the model contain different updates")

    def _expected(self, trace: np.ndarray, shard: int) -> np.ndarray:
        """Return the weights to which the updates in a trace lead: each the mean of its gradients by samples."""
        weights = initial_weights(self._settings.shards, self._samples).astype(np.float64)
        weights = weights[shard * self._samples : (shard + 1) * self._samples]
        applied = trace[trace["outcome"] == 0]
        for version in np.unique(applied["version"]):
            group = applied[applied["version"] == version]
            if not group["samples"].sum():
                self._world.problem(f"shard {shard}: the trace has updates without samples")
                continue
            for record in group:
                share = float(record["samples"]) / float(group["samples"].sum())
                weights[self._indices(record)] -= float(record["learning_rate"]) * share
        return weights

    def _indices(self, record: Any) -> np.ndarray:
        order = np.random.default_rng((self._settings.seed, int(record["epoch"]))).permutation(self._samples)
        return order[int(record["start"]) : int(record["stop"])]

    def _check_traces(self, traces: list[np.ndarray], admitted: set[int], summary: dict[str, Any]) -> None:
        """Check the history of every shard, and that each sample of each epoch has one outcome on each."""
        world, lacking = self._world, []
        for shard, trace in enumerate(traces):
            if shard in admitted:
                continue
            for fault in faults_of(trace, overlap=not self._traits.reads_own_pushes):
                world.problem(f"trace of shard {shard}: {fault}")
            self._replies.check(shard, trace, summary.get("generation", 0))
            covered = self._covered(trace)
            if covered.max() > 1:
                world.problem(f"shard {shard}: {(covered > 1).sum()} samples have several outcomes in an epoch")
            lacking.append(covered == 0)
        most = summary.get("partial_pushes", 0) * self._traits.most_samples
        if not admitted and np.any(lacking, axis=0).sum() > most:
            world.problem(f"{np.any(lacking, axis=0).sum()} samples lack on a shard; by the summary at most {most} do")
        if not admitted and np.all(lacking, axis=0).any():
            world.problem(f"{np.all(lacking, axis=0).sum()} samples have no outcome on any shard")

    def _covered(self, trace: np.ndarray) -> np.ndarray:
        """Return the number of outcomes of every position of every epoch, `int64[epochs, samples]`."""
        covered = np.zeros((self._settings.epochs, self._samples), np.int64)
        for record in trace:
            covered[int(record["epoch"]), int(record["start"]) : int(record["stop"])] += 1
        return covered

    def _trace(self, files: Any, shard: int, lacking: bool) -> np.ndarray:
        if lacking and f"/run/{per_shard('trace', shard)}" not in files:
            return np.zeros(0, DTYPE)
        content = bytes(files[f"/run/{per_shard('trace', shard)}"].content)
        trace: np.ndarray = np.load(io.BytesIO(content))
        return trace

    def _recorded(self, trace: np.ndarray) -> np.ndarray:
        """Return how often each sample was applied according to a trace."""
        counts = np.zeros(self._samples)
        for record in trace[trace["outcome"] == 0]:
            counts[self._indices(record)] += 1
        return counts


def _json(content: bytes | bytearray) -> dict[str, Any]:
    try:
        found = json.loads(bytes(content))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
