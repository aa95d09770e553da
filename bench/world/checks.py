"""The invariants of a simulated job, checked after every event and at its end."""

from __future__ import annotations

import io
import json
import re
import zlib
from collections import Counter
from typing import Any

import numpy as np

from downpour.bench.chaos.history import faults_of
from downpour.bench.world.checkpoint_check import CheckpointCheck
from downpour.bench.world.computation import applications, initial_weights, weights_in
from downpour.bench.world.push_replies import PushReplies
from downpour.bench.world.ssp_clocks import SspClocks
from downpour.bench.world.system.process import VirtualProcess
from downpour.bench.world.system.scheduler import World
from downpour.ps.config import ServerSettings
from downpour.ps.coordinator.ledger import Ledger
from downpour.ps.coordinator.phase import Phase
from downpour.ps.data_plane.shard_runtime import ShardRuntime
from downpour.ps.server import CoordinatorProcess
from downpour.ps.trace.files import per_shard
from downpour.ps.trace.format import DTYPE

LACKING = re.compile(r"trace of shard (\d+) lacks|shard (\d+) was lost after the end")  # notes about missing records
MOST_ALIKE = 15  # notes that differ in numbers only: workers leave and join
OWN_PUSH_FIRST = ("async", "ssp", "bsp", "localsgd")  # modes whose workers wait until their push is applied
REPLICAS = ("localsgd", "geo", "easgd")  # modes in which a push is a difference of weights, not a gradient


class Watch:
    """Checks the invariants of one job by reading the state of its servers.

    Violations are reported to `World.problem`.

    Attributes:
        unwritable: Whether the coordinator could not write to its disk when it ended.
    """

    def __init__(self, world: World, samples: int, settings: ServerSettings) -> None:
        """Build the checks of a job that has not begun.

        Args:
            world: The world that receives the violations.
            samples: The number of samples in an epoch.
            settings: The settings of the job.
        """
        self._world, self._samples, self._settings = world, samples, settings
        self._runtimes: dict[int, tuple[VirtualProcess, ShardRuntime]] = {}
        self._shards: dict[VirtualProcess | None, int] = {}
        self._coordinator: CoordinatorProcess | None = None
        self._lives = 0  # of the coordinator
        self._versions: dict[int, tuple[int, int, int]] = {}
        self._name, _, self._parameter = settings.mode.partition(":")
        plain = settings.staleness_policy == "none" and settings.schedule == "constant"
        self.sums = plain and self._name in ("async", "ssp")  # each update is one push: weights count the samples
        self._corrects = settings.staleness_policy == "dc_asgd"
        self._slack = int(self._parameter) if self._name == "ssp" else None
        self._clocks: dict[int, SspClocks] = {}
        self.replies = PushReplies(world, self._name in REPLICAS)
        most = settings.batch_size * (int(self._parameter or 1) if self._name in REPLICAS else settings.push_every)
        self._most_samples = most  # in a push
        self._checkpoints = CheckpointCheck(world, samples, settings, self.sums, most)
        self._taken = 0
        self.unwritable = False

    # ------------------------------------------------------------------ callbacks of the job

    def server_built(self, shard: int, process: VirtualProcess, built: Any) -> None:
        """Check the state of a server process from now on."""
        self._runtimes[shard] = (process, built.runtime)
        self._shards[process] = shard
        self._versions.pop(shard, None)
        if self._slack is not None:
            self._clocks[shard] = SspClocks(self._world, shard, self._slack)
        if isinstance(built, CoordinatorProcess):
            self._coordinator = built
            self._lives, self._taken = self._lives + 1, 0

    @property
    def ledger(self) -> Ledger | None:
        """The ledger of the job."""
        return self._coordinator.coordinator.work.ledger if self._coordinator else None

    def all_train(self, workers: int) -> bool:
        """Return whether the job trains, with all of its workers."""
        job = self._coordinator.coordinator.job if self._coordinator else None
        return job is not None and job.phase == Phase.TRAINING and len(job.membership) == workers

    def weights_seen(self, flat: np.ndarray) -> None:
        """Check the weights that a gradient is computed from, `float32[shards * samples]`."""
        if self.sums:
            self._check_counts(applications(flat, self._settings.shards), "weights that a worker pulled")

    def evaluated(self, epoch: int, flat: np.ndarray) -> None:
        """Check the weights of the evaluation of an epoch: they contain each of its samples."""
        if self.sums and self._settings.shards == 1:
            counts = applications(flat, 1)
            if counts.min() < epoch + 1 and not self._dropped():
                self._world.problem(f"the evaluation of epoch {epoch} has weights that lack samples")

    def _dropped(self) -> int:
        return self._coordinator.runtime.records.metrics.dropped.total() if self._coordinator else 0

    # ------------------------------------------------------------------ after every event

    def after_event(self, process: VirtualProcess | None) -> None:
        """Check the shard of the process that has executed the event, if its version has changed."""
        shard = self._shards.get(process)
        if shard is None:
            return
        owner, runtime = self._runtimes[shard]
        held = runtime.shard
        if owner is not process or held is None or runtime.void or not owner.alive:
            return
        if not shard and self._coordinator is not None and self._coordinator.checkpointer.taken != self._taken:
            self._taken = self._coordinator.checkpointer.taken
            self._checkpoints.check(owner.machine.disk)
        if shard in self._clocks:
            self._clocks[shard].check(held)
        before, now = self._versions.get(shard), (self._lives, held.generation, held.version)
        if before == now:
            return
        self._versions[shard] = now
        if before is not None and now < before:
            self._world.problem(f"shard {shard} went from (life, generation, version) {before} to {now}")
        if (before is None or before[:2] != now[:2]) and held.version < self._checkpoints.version_of(shard):
            self._world.problem(f"shard {shard} began at version {held.version}, behind the newest checkpoint")
        if self.sums:
            self._check_shard(shard, held)
        if self._corrects and held.uncorrected > runtime.metrics.duplicates:
            self._world.problem(f"shard {shard}: {held.uncorrected} gradients were not corrected")

    def _check_shard(self, shard: int, held: Any) -> None:
        buffer, _ = held.pull()
        weights = buffer.array
        start = np.arange(shard * self._samples, (shard + 1) * self._samples) % 17 - 8
        counts = ((start - weights) / 0.125)[None]
        held.release(buffer)
        self._check_counts(counts, f"shard {shard}")
        coordinator = self._coordinator
        if shard or coordinator is None or self._settings.shards > 1:
            return
        ledger = self.ledger
        if ledger is not None and int(counts.sum()) != ledger.used_total and not self._dropped():
            self._world.problem(
                f"the weights contain {int(counts.sum())} samples, and the ledger has {ledger.used_total} used"
            )

    def _check_counts(self, counts: np.ndarray, where: str) -> None:
        if not np.array_equal(counts, np.rint(counts)):
            self._world.problem(f"{where}: an update was applied in part")
        elif counts.min() < 0 or counts.max() > self._settings.epochs:
            self._world.problem(
                f"{where}: a sample was applied {counts.max():g} times in {self._settings.epochs} epochs"
            )

    # ------------------------------------------------------------------ at the end

    def conclude(self, status: int | None, last: VirtualProcess, may_fail: bool) -> None:
        """Check the files and the exit code of a job that has ended.

        Args:
            status: The exit code of the coordinator.
            last: The last process of the coordinator, on whose disk the run directory is.
            may_fail: Whether the job may have failed, because the disk failed or the coordinator was asked to end.
        """
        world, files = self._world, last.machine.disk.names
        summary = _json(files["/run/summary.json"].content) if "/run/summary.json" in files else {}
        if status == 0 and summary.get("status") not in ("ended", "interrupted") and not may_fail:
            world.problem(f"the coordinator exited with 0, and the summary says {summary.get('status')!r}")
        if status not in (0, None) and not may_fail:
            world.problem(f"the job failed: {summary.get('notes', [])[-3:]}")
        trained = summary.get("generation") in self.replies.applied or self._checkpoints.version_of(0)
        if status == 0 and trained and "/run/model.keras" not in files:
            world.problem("the coordinator exited with 0, and no model is saved")
        self._check_notes(summary)
        for shard, (process, runtime) in self._runtimes.items():
            if process.code == 0 and runtime.waiters.workers:
                world.problem(f"shard {shard} ended while replies to workers {runtime.waiters.workers} waited")
        if summary.get("status") == "ended" and not self.unwritable:
            self._check_result(summary, files, last, may_fail)
        for name in sorted(files):
            if "trace" in name or name.endswith("model.keras"):
                world.digest = zlib.crc32(bytes(files[name].content), world.digest)

    def _check_notes(self, summary: dict[str, Any]) -> None:
        """Check that no note repeats itself, apart from the numbers and names of files in it."""
        alike = Counter(re.sub(r"[0-9a-f]{8}|[0-9]+", "#", note) for note in summary.get("notes", []))
        for note, count in alike.items():
            if count > MOST_ALIKE:
                self._world.problem(f"there are {count} notes like: {note}")

    def _check_result(self, summary: dict[str, Any], files: Any, last: VirtualProcess, may_fail: bool) -> None:
        world, shards = self._world, self._settings.shards
        if "/run/model.keras" not in files:
            world.problem("the job has ended, and there is no model")
            return
        weights = weights_in(bytes(files["/run/model.keras"].content), shards * self._samples)
        noted = [found for note in summary.get("notes", []) if (found := LACKING.search(note))]
        admitted = {int(found[1] or found[2]) for found in noted}
        if self._runtimes[0][0] is not last:  # a kill after the end may lose the last records of the other shards
            admitted |= set(range(1, shards))
        try:
            traces = [self._trace(files, shard, lacking=shard in admitted) for shard in range(shards)]
        except (KeyError, ValueError, EOFError) as error:
            if not may_fail:
                world.problem(f"the job has ended, and a trace cannot be read: {error!r}")
            return
        self._check_traces(traces, admitted, summary)
        if self.sums:
            counts = applications(weights, shards)
            self._check_counts(counts, "the model")
            for shard, trace in enumerate(traces):
                if shard not in admitted and not np.array_equal(self._recorded(trace), counts[shard]):
                    world.problem(f"shard {shard}: the trace and the model contain different updates")
        elif self._name not in REPLICAS and not self._corrects:
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
            for fault in faults_of(trace, overlap=self._settings.overlap or self._name not in OWN_PUSH_FIRST):
                world.problem(f"trace of shard {shard}: {fault}")
            self.replies.check(shard, trace, summary.get("generation", 0))
            covered = self._covered(trace)
            if covered.max() > 1:
                world.problem(f"shard {shard}: {(covered > 1).sum()} samples have several outcomes in an epoch")
            lacking.append(covered == 0)
        most = summary.get("partial_pushes", 0) * self._most_samples
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
