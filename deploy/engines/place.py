"""The place of this process in a job that an engine has started, read from the engine's variables. Pure.

Two forms exist. Slurm starts one task for each process, and the tasks share a file system, in which the first server
announces its address. SkyPilot, dstack and an indexed Job of Kubernetes start one command on each node and state where
the first node is; that node runs the servers and a worker, so that no node is idle.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from downpour.protos.sentences.sentence import counted

PORT = 7171  # of the first server, where its address must be known before it starts


class BadPlace(ValueError):
    """The variables of an engine do not describe a place; the message says what to do."""


@dataclass(frozen=True)
class EnginePlace:
    """The place of one process, or of one node's processes, in a job.

    Attributes:
        engine: The name of the engine.
        rank: The number of this task or node, from 0.
        size: The number of tasks or nodes; 0 if the engine does not state it.
        job: A name of the job that stays the same if the engine starts it again.
        found: The variables that describe the place, for a message.
        local_rank: The number of this task among those of its node.
        nodes: The number of nodes.
        first: The address of the first server, `HOST:PORT`; empty if it is announced in the run directory.
        attempt: The number of times that the engine has started the job again.
    """

    engine: str
    rank: int
    size: int
    job: str
    found: str
    local_rank: int = 0
    nodes: int = 1
    first: str = ""
    attempt: int = 0

    @property
    def is_node(self) -> bool:
        """Whether the engine starts one command for each node instead of one for each process."""
        return bool(self.first)

    def workers(self, shards: int) -> int:
        """Return the number of workers of a job with so many servers.

        Raises:
            BadPlace: No task is left for a worker.
        """
        workers = self.size if self.is_node else self.size - shards
        if workers < 1:
            raise BadPlace(
                f"{self.engine} must start at least {shards + 1} tasks, for {counted(shards, 'server')} and a "
                f"worker; received {self.size}. Use --ntasks={shards + 2} or fewer --shards"
            )
        return workers

    def processes(self, shards: int) -> tuple[str, ...]:
        """Return the names of the processes of the plan that run here."""
        if self.is_node:
            servers = tuple(f"ps-{shard}" for shard in range(shards)) if self.rank == 0 else ()
            return (*servers, f"worker-{self.rank}")
        return (f"ps-{self.rank}",) if self.rank < shards else (f"worker-{self.rank - shards}",)

    def local_worker(self, shards: int) -> int:
        """Return the number of this task's worker among the workers of its node, in the order of the ranks."""
        if self.is_node:
            return 0
        servers_here = min(max(shards - (self.rank - self.local_rank), 0), self.local_rank)
        return self.local_rank - servers_here

    def at_port(self, port: int) -> EnginePlace:
        """Return the same place with another port of the first server, if its address is known."""
        return replace(self, first=f"{self.first.rpartition(':')[0]}:{port}") if self.first else self

    def of_size(self, size: int) -> EnginePlace:
        """Return the same place in a job of so many tasks."""
        return replace(self, size=size)


def slurm(environ: Mapping[str, str]) -> EnginePlace:
    """Return the place of a task that `srun` has started.

    Raises:
        BadPlace: This process is not a task of a step.
    """
    if "SLURM_STEP_ID" not in environ or "SLURM_PROCID" not in environ:
        where = "inside an allocation, but not a task" if "SLURM_JOB_ID" in environ else "outside of Slurm"
        raise BadPlace(
            f"the process must be a task that srun has started; it is {where}. Write: srun downpour slurm SCRIPT, in a "
            "batch script or with sbatch --ntasks=5 --wrap 'srun downpour slurm SCRIPT'"
        )
    rank, size = _whole(environ, "SLURM_PROCID"), _whole(environ, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
    job, step = environ.get("SLURM_JOB_ID", "0"), environ["SLURM_STEP_ID"]
    nodes = _whole(environ, "SLURM_STEP_NUM_NODES", "SLURM_NNODES")
    return EnginePlace(
        "Slurm", rank, size, f"slurm-{job}.{step}",
        f"SLURM_JOB_ID={job}, SLURM_PROCID={rank} of {counted(size, 'task')} on {counted(nodes, 'node')}",
        local_rank=_whole(environ, "SLURM_LOCALID", default=0), nodes=nodes,
        attempt=_whole(environ, "SLURM_RESTART_COUNT", default=0),
    )  # fmt: skip


def skypilot(environ: Mapping[str, str]) -> EnginePlace:
    """Return the place of a node of a SkyPilot task."""
    rank, size = _whole(environ, "SKYPILOT_NODE_RANK"), _whole(environ, "SKYPILOT_NUM_NODES")
    addresses = environ.get("SKYPILOT_NODE_IPS", "").split()
    if len(addresses) != size:
        raise BadPlace(f"SKYPILOT_NODE_IPS must list {size} addresses; received {addresses}")
    job = environ.get("SKYPILOT_TASK_ID", "skypilot")
    found = f"SKYPILOT_NODE_RANK={rank} of {counted(size, 'node')}"
    return EnginePlace("SkyPilot", rank, size, job, found, nodes=size, first=_address(addresses[0]))


def dstack(environ: Mapping[str, str]) -> EnginePlace:
    """Return the place of a node of a dstack task."""
    rank, size = _whole(environ, "DSTACK_NODE_RANK"), _whole(environ, "DSTACK_NODES_NUM")
    master = environ.get("DSTACK_MASTER_NODE_IP", "")
    if not master:
        raise BadPlace("DSTACK_MASTER_NODE_IP must be the address of node 0; it is not set")
    job = environ.get("DSTACK_RUN_NAME") or "dstack"
    found = f"DSTACK_NODE_RANK={rank} of {counted(size, 'node')}"
    return EnginePlace("dstack", rank, size, job, found, nodes=size, first=_address(master))


def kubernetes(environ: Mapping[str, str], host_name: str) -> EnginePlace:
    """Return the place of a pod of an indexed Job, whose size Kubernetes does not state.

    Args:
        environ: The environment.
        host_name: The full host name of this pod, `JOB-INDEX.SUBDOMAIN.NAMESPACE.svc.…`.
    """
    rank = _whole(environ, "JOB_COMPLETION_INDEX")
    own, _, domain = host_name.partition(".")
    match = re.fullmatch(r"(.+)-(\d+)", own)
    if match is None or int(match[2]) != rank or not domain:
        raise BadPlace(
            f"the pod {host_name} must be named JOB-{rank}.SUBDOMAIN, so that the others find JOB-0. Give the Job a "
            "headless Service and spec.template.spec.subdomain its name"
        )
    found = f"JOB_COMPLETION_INDEX={rank} in the Job {match[1]}"
    return EnginePlace("Kubernetes", rank, 0, match[1], found, nodes=2, first=f"{match[1]}-0.{domain}:{PORT}")


def detected(environ: Mapping[str, str], host_name: Callable[[], str]) -> EnginePlace | None:
    """Return the place that the environment describes; None if no engine has started this process.

    Raises:
        BadPlace: An engine's variables are incomplete.
    """
    if "JOB_COMPLETION_INDEX" in environ:
        return kubernetes(environ, host_name())
    if "SKYPILOT_NODE_RANK" in environ:
        return skypilot(environ)
    if "DSTACK_NODE_RANK" in environ:
        return dstack(environ)
    if "SLURM_JOB_ID" in environ:
        return slurm(environ)
    return None


def _address(host: str) -> str:
    return f"[{host}]:{PORT}" if ":" in host else f"{host}:{PORT}"


def _whole(environ: Mapping[str, str], *names: str, default: int | None = None) -> int:
    """Return the first of some variables that is set, as an integer of at least 0."""
    name = next((name for name in names if environ.get(name)), names[-1])
    text = environ.get(name, "" if default is None else str(default))
    if not (text.isascii() and text.isdigit()):
        raise BadPlace(f"the variable {name} must be an integer of at least 0; received {text!r}")
    return int(text)
