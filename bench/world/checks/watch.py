"""The invariants of a simulated job, checked after every event and at its end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from downpour.bench.world.checks.checkpoints import CheckpointCheck
from downpour.bench.world.checks.integer_weights import counted, differences, initial_weights, is_whole, weights_in
from downpour.bench.world.checks.push_replies import PushReplies
from downpour.bench.world.checks.result import JobEnd, ResultCheck
from downpour.bench.world.checks.servers import ServerStates
from downpour.bench.world.checks.ssp_clocks import SspClocks
from downpour.bench.world.checks.traits import JobTraits
from downpour.bench.world.system.disk import Inode, VirtualDisk
from downpour.bench.world.system.process import VirtualProcess
from downpour.bench.world.system.scheduler import World
from downpour.ps.config import ServerSettings
from downpour.ps.coordinator.ledger import Ledger
from downpour.ps.coordinator.phase import Phase
from downpour.ps.core.shard import Shard
from downpour.ps.data_plane.shard_runtime import ShardRuntime
from downpour.ps.server import CoordinatorProcess

MODEL = "/run/model.keras"


class Watch:
    """Checks the invariants of one job by reading the state of its servers.

    Violations are reported to `World.problem`.

    Attributes:
        sums: Whether the weights count the samples exactly.
        replies: The replies that workers have received.
    """

    def __init__(self, world: World, samples: int, settings: ServerSettings, changes: bool = False) -> None:
        """Build the checks of a job that has not begun.

        Args:
            world: The world that receives the violations.
            samples: The number of samples in an epoch.
            settings: The settings of the job.
            changes: Whether a user changes the mode of the job.
        """
        self._world, self._samples, self._settings = world, samples, settings
        self._traits = traits = JobTraits.of(settings)
        if changes:
            self._traits = traits = replace(traits, slack=None)
        self.sums = traits.sums
        self._initial = initial_weights(settings.shards, samples)
        self._runtimes: dict[int, tuple[VirtualProcess, ShardRuntime]] = {}
        self._servers_of: dict[VirtualProcess | None, tuple[int, ShardRuntime, CoordinatorProcess | None]] = {}
        self._seen: dict[int, tuple[object, int, int]] = {}  # shard, generation and version, as last checked
        self._coordinator: CoordinatorProcess | None = None
        self._starts = 0  # of the coordinator
        self._versions: dict[int, tuple[int, int, int]] = {}
        self._clocks: dict[int, SspClocks] = {}
        self.replies = PushReplies(world, traits.replicas)
        self._servers = ServerStates(world)
        self._checkpoints = CheckpointCheck(world, samples, settings, traits)
        self._result = ResultCheck(world, samples, settings, traits, self.replies)
        self._taken = 0
        self._model: Inode | None = None  # that has been checked

    # ------------------------------------------------------------------ callbacks of the job

    def server_built(self, shard: int, process: VirtualProcess, built: Any) -> None:
        """Check the state of a server process from now on."""
        self._runtimes[shard] = (process, built.runtime)
        coordinator = built if isinstance(built, CoordinatorProcess) else None
        self._servers_of[process] = shard, built.runtime, coordinator
        self._versions.pop(shard, None)
        self._seen.pop(shard, None)
        if self._traits.slack is not None:
            self._clocks[shard] = SspClocks(self._world, shard, self._traits.slack)
        if coordinator is not None:
            self._coordinator = coordinator
            self._starts, self._taken = self._starts + 1, 0

    def damaged(self, disk: VirtualDisk, path: str) -> None:
        """Expect that the newest checkpoint, which has been damaged, is not used."""
        self._checkpoints.damaged(disk, path)

    @property
    def ledger(self) -> Ledger | None:
        """The ledger of the job."""
        return self._coordinator.coordinator.work.ledger if self._coordinator else None

    def incarnation_of(self, worker: int) -> int:
        """Return the newest incarnation of a worker; 0 if it has never joined."""
        job = self._coordinator.coordinator.job if self._coordinator else None
        return job.membership.incarnations.get(worker, 0) if job is not None else 0

    def push_altered(self, message: bytes, of_lease: bool) -> None:
        """Expect the shards to refuse a push that a Byzantine worker has altered."""
        self.replies.expect_refusal(message, of_lease)

    @property
    def other_mode(self) -> str:
        """A mode with the properties of the job's, to which a user may change it; its own if there is none."""
        mode = self._settings.mode
        return "ssp:2" if mode == "async" else "async" if mode.startswith("ssp") else mode

    def all_train(self) -> bool:
        """Return whether the job trains, with all of its workers."""
        job = self._coordinator.coordinator.job if self._coordinator else None
        return job is not None and job.phase == Phase.TRAINING and len(job.membership) == self._settings.workers

    def weights_seen(self, flat: np.ndarray) -> None:
        """Check the weights that a gradient is computed from, `float32[shards * samples]`."""
        if self.sums:
            self._check_weights(flat, self._initial, "weights that a worker pulled")

    def evaluated(self, epoch: int, flat: np.ndarray) -> None:
        """Check the weights of the evaluation of an epoch: they contain each of its samples."""
        if self.sums and self._settings.shards == 1:
            counts, _ = counted(differences(flat, self._initial))
            if counts.min() < epoch + 1 and not self._dropped():
                self._world.problem(f"the evaluation of epoch {epoch} has weights that lack samples")

    def _dropped(self) -> int:
        return self._coordinator.runtime.records.metrics.dropped.total() if self._coordinator else 0

    # ------------------------------------------------------------------ after every event

    def after_event(self, process: VirtualProcess | None) -> None:
        """Check the shard of the process that has executed the event."""
        found = self._servers_of.get(process)
        if found is None or process is None or not process.alive:
            return
        shard, runtime, coordinator = found
        self._servers.check_shard(shard, runtime)
        if coordinator is not None:
            self._servers.check_coordinator(coordinator)
            model = process.machine.disk.names.get(MODEL)
            if model is not self._model and model is not None:
                self._check_model(model)
            if coordinator.checkpointer.taken != self._taken:
                self._taken = coordinator.checkpointer.taken
                self._checkpoints.check(process.machine.disk)
        held = runtime.shard
        if held is None or runtime.void:
            return
        if shard in self._clocks:
            self._clocks[shard].check(held)
        seen = held, held.generation, held.version
        if seen != self._seen.get(shard):
            self._seen[shard] = seen
            self._check_version(shard, runtime, held)

    def _check_model(self, model: Inode) -> None:
        """Check a model that has been published just now."""
        self._model = model
        if not is_whole(model.content):
            self._world.problem("an incomplete model was published")
        elif self.sums:
            self._check_weights(weights_in(bytes(model.content), len(self._initial)), self._initial, "the model")

    def _check_version(self, shard: int, runtime: ShardRuntime, held: Shard) -> None:
        """Check a shard whose version has changed."""
        before, now = self._versions.get(shard), (self._starts, held.generation, held.version)
        if before == now:
            return
        self._versions[shard] = now
        if before is not None and now < before:
            self._world.problem(f"shard {shard} went from (life, generation, version) {before} to {now}")
        if (before is None or before[:2] != now[:2]) and held.version < self._checkpoints.version_of(shard):
            self._world.problem(f"shard {shard} began at version {held.version}, behind the newest checkpoint")
        if self.sums:
            self._check_shard(shard, held)
        if self._traits.corrects and held.uncorrected > runtime.metrics.duplicates:
            self._world.problem(f"shard {shard}: {held.uncorrected} gradients were not corrected")

    def _check_shard(self, shard: int, held: Shard) -> None:
        buffer, _ = held.pull()
        initial = self._initial[shard * self._samples : (shard + 1) * self._samples]
        counts = self._check_weights(buffer.array, initial, f"shard {shard}")
        held.release(buffer)
        ledger = self.ledger
        if shard or ledger is None or self._settings.shards > 1:
            return
        if int(counts.sum()) != ledger.used_total and not self._dropped():
            self._world.problem(
                f"the weights contain {int(counts.sum())} samples, and the ledger has {ledger.used_total} used"
            )

    def _check_weights(self, weights: np.ndarray, initial: np.ndarray, where: str) -> np.ndarray:
        """Check that weights consist of complete updates, and return how often each sample was applied."""
        counts, origins = counted(differences(weights, initial))
        if not np.array_equal(counts, np.rint(counts)):
            self._world.problem(f"{where}: an update was applied in part")
        elif origins.min() != origins.max():
            self._world.problem(f"{where}: the initial weights of several workers are mixed")
        elif counts.max() > self._settings.epochs:
            self._world.problem(
                f"{where}: a sample was applied {counts.max():g} times in {self._settings.epochs} epochs"
            )
        return counts

    # ------------------------------------------------------------------ at the end

    def conclude(self, status: int | None, last: VirtualProcess, end: JobEnd) -> None:
        """Check the files and the exit code of a job that has ended; see `ResultCheck.check`."""
        for shard, (process, runtime) in self._runtimes.items():
            if process.code == 0 and runtime.waiters.workers:
                self._world.problem(f"shard {shard} ended while replies to workers {runtime.waiters.workers} waited")
            if process.code == 0 and (leaked := leaked_buffers(runtime)):
                self._world.problem(f"shard {shard} ended while {leaked} buffers of weights were held by nobody")
        end = replace(
            end,
            killed_after=self._runtimes[0][0] is not last,
            has_checkpoint=bool(self._checkpoints.version_of(0)),
        )
        self._result.check(status, last, end)


def leaked_buffers(runtime: ShardRuntime) -> int:
    """Return the number of buffers of a shard without requests that are neither free nor kept for a known reason."""
    shard = runtime.shard
    if shard is None:
        return 0
    kept = {id(shard._committed), *(id(buffer) for buffer, _ in shard._pins.values())}
    kept |= {id(buffer) for buffer in shard._replicas.values()}
    kept |= {id(buffer) for buffer, _ in shard._versions._held.values()}
    return shard._pool.allocated - len(shard._pool._spare) - len(kept)
