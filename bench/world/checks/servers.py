"""The states that no server may be in between two events: a turn of its event loop carries out all consequences."""

from __future__ import annotations

from downpour.bench.world.system.scheduler import World
from downpour.ps.coordinator.ledger import SUSPENDED
from downpour.ps.coordinator.phase import OVER, Phase
from downpour.ps.data_plane.shard_runtime import ShardRuntime
from downpour.ps.server import CoordinatorProcess


class ServerStates:
    """Checks the states of the servers of one job."""

    def __init__(self, world: World) -> None:
        """Create checks that have seen no server yet."""
        self._world = world
        self._generations: dict[ShardRuntime, int] = {}
        self._checked: object = None

    def check_shard(self, shard: int, runtime: ShardRuntime) -> None:
        """Check that no reply waits which may leave, and that a generation begins without state of the one before."""
        waiting, held = runtime.waiters._waiting, runtime.shard
        if not waiting and self._generations.get(runtime) == runtime.generation:
            return
        if waiting and held is not None:
            members = list(held._outcomes)
            for worker in waiting:
                if worker not in members:
                    self._world.problem(f"shard {shard}: a reply waits for worker {worker}, which has left")
                elif held.may_proceed(worker):
                    self._world.problem(f"shard {shard}: the reply to worker {worker} waits, and may leave")
        if self._generations.get(runtime) != runtime.generation:
            self._generations[runtime] = runtime.generation
            if runtime.cut.under_way or runtime.cut.newest or waiting:
                self._world.problem(
                    f"shard {shard}: generation {runtime.generation} begins with pushes of an earlier one"
                )

    def check_coordinator(self, built: CoordinatorProcess) -> None:
        """Check that the coordinator's members, leases and cut are consistent with each other and with shard 0."""
        problem, job, runtime = self._world.problem, built.coordinator.job, built.runtime
        cut, ledger = built.checkpointer._cut, built.coordinator.work.ledger
        # Attributes, because this is executed after every event: properties would make all jobs noticeably slower.
        state = (
            job.phase, job.membership.number, len(job.shards._addresses), len(job.orphans._open),
            len(ledger._leases) if ledger is not None else 0, cut is None, runtime.cut._hold is None, runtime.void,
            runtime.shard,
        )  # fmt: skip
        if state == self._checked:
            return
        self._checked, cutting = state, cut is not None
        if runtime.cut.under_way and not cutting:
            problem("shard 0 holds pushes for a cut that is not under way")
        if cutting and (job.phase == Phase.RECOVERING or not job.shards.joined):
            problem("a cut is under way while a shard is missing")
        if job.phase == Phase.RECOVERING and (len(job.membership) or len(job.orphans)):
            problem("a generation begins with workers of an earlier one")
        if ledger is not None and job.phase not in (*OVER, Phase.RECOVERING):  # its ledger is void
            for lease in ledger.held:
                if lease.worker == SUSPENDED:
                    if not len(job.orphans):
                        problem(f"lease {lease.number} is suspended for ever")
                elif job.membership.get(lease.worker) is None:
                    problem(f"lease {lease.number} belongs to worker {lease.worker}, which has left")
        if runtime.shard is not None and not runtime.void:
            members = {member.worker for member in job.membership.members}
            if members != set(runtime.shard._outcomes):
                problem(f"the workers of the job are {members}, and those of shard 0 {set(runtime.shard._outcomes)}")
