"""Derives the processes of one task from the plan of the whole job. Pure: starts nothing and opens nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from downpour.deploy.engines.place import EnginePlace
from downpour.deploy.launch.plan import ProcessSpec, assigned_gpus, on_gpus

EVERYWHERE = "0.0.0.0"
LOOPBACK = "127.0.0.1"


def bind_of(place: EnginePlace, shard: int) -> str:
    """Return the address on which a server listens: loopback if all processes are on one node."""
    if place.is_node:
        return f"{EVERYWHERE}:{place.first.rpartition(':')[2] if shard == 0 else 0}"
    return f"{EVERYWHERE if place.nodes > 1 else LOOPBACK}:0"


def task_plan(
    place: EnginePlace, job: Sequence[ProcessSpec], shards: int, devices: Sequence[str], per_worker: float | None
) -> list[ProcessSpec]:
    """Return the processes of the job that run here, in the order in which they start.

    Args:
        place: The place of this task.
        job: The processes of the whole job, as the local launcher would start them.
        shards: The number of servers.
        devices: The names of the GPUs that this task may use.
        per_worker: The number of GPUs of a worker; None if the user has not set it.

    Raises:
        TooFewGpus: This task may use fewer GPUs than its worker needs.
    """
    here = set(place.processes(shards))
    return [_placed(spec, place, shards, devices, per_worker) for spec in job if spec.name in here]


def _placed(
    spec: ProcessSpec, place: EnginePlace, shards: int, devices: Sequence[str], per_worker: float | None
) -> ProcessSpec:
    if spec.role == "ps":
        kept = [arg for arg in spec.args if not arg.startswith("--bind=")]
        return replace(spec, args=(f"--bind={bind_of(place, spec.number)}", *kept))
    # Files are kept apart by machine, and a script's first worker ends the job: no launcher sees all its processes.
    args = tuple(arg for arg in spec.args if not arg.startswith("--shared-dir="))
    if spec.foreign and spec.number == 0:
        args = ("--end-job", *args)
    local = place.local_worker(shards)
    gpus = assigned_gpus(local + 1, devices, per_worker)[local]
    return on_gpus(replace(spec, args=args), gpus, per_worker)
