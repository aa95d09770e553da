"""Derives the processes of a cluster from its settings. Pure: starts nothing and opens nothing.

A launcher starts the processes in the order of the list. The address of a server is known only after it has announced
it, so arguments contain placeholders such as `{ps-0}`, which `ProcessSpec.command` replaces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from downpour.deploy.config import TrainSettings
from downpour.protos.credentials import AccessSettings
from downpour.protos.logs import LogSettings
from downpour.protos.sentences.sentence import counted
from downpour.protos.settings import ENV_PREFIX, Settings, to_flags
from downpour.ps.config import JobSettings, ServerSettings
from downpour.worker.config import WorkerSettings

Role = Literal["ps", "worker", "dashboard"]
LOOPBACK = "127.0.0.1:0"
AGAIN = ("--resume", "--fresh-workers")  # flags that concern one start of a server
VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
NO_GPU = {VISIBLE_DEVICES: ""}  # of a server, which computes on the processor

# Variables that a process of the plan must not inherit: the launcher passes these settings as flags.
SET_BY_FLAGS = frozenset(
    f"{ENV_PREFIX}{name.upper()}"
    for name in (*TrainSettings.model_fields, *("bind", "advertise", "shard", "coordinator", "run_dir"))
)


@dataclass(frozen=True)
class ProcessSpec:
    """The description of one process of a cluster, for any launcher.

    Attributes:
        name: The unique name in the cluster, such as `ps-0` or `worker-3`.
        role: `ps`, `worker` or `dashboard`.
        number: The number of the shard or of the worker.
        module: The module that `python -m` runs.
        args: The arguments of the module, which may contain placeholders.
        env: The variables that take precedence over the launcher's environment.
        needs: The servers whose address must be known first.
        restarts: The number of times that it is restarted after it died.
        shown: Whether it writes to the launcher's output instead of a log.
        foreign: Whether it runs a user's program, whose temporary files must remain.
        set_by_flags: The variables that it must not inherit, as their settings are passed as flags.
    """

    name: str
    role: Role
    number: int
    module: str
    args: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    restarts: int = 0
    shown: bool = False
    foreign: bool = False
    set_by_flags: frozenset[str] = SET_BY_FLAGS

    def command(self, python: str, addresses: Mapping[str, str]) -> list[str]:
        """Return the command line, with the placeholders of `needs` replaced.

        Args:
            python: The path of the interpreter.
            addresses: `HOST:PORT` of each server, by name.

        Raises:
            KeyError: The address of a server in `needs` is missing.
        """
        args = list(self.args)
        for name in self.needs:
            args = [arg.replace(f"{{{name}}}", addresses[name]) for arg in args]
        return [python, "-P", "-m", self.module, *args]

    def numbered(self, number: int) -> ProcessSpec:
        """Return a worker like this one with another number."""
        args = tuple(f"--worker={number}" if arg.startswith("--worker=") else arg for arg in self.args)
        return replace(self, name=f"{self.role}-{number}", number=number, args=args)

    def again(self, address: str | None) -> ProcessSpec:
        """Return the process to start after this one died: a server resumes at its address from its checkpoint."""
        if self.role != "ps" or address is None:
            return self
        kept = [arg for arg in self.args if not arg.startswith("--bind=") and arg not in AGAIN]
        resume = ["--resume"] if self.number == 0 else []
        return replace(self, args=(f"--bind={address}", *kept, *resume))


class TooFewGpus(ValueError):
    """The workers cannot have as many GPUs as the settings demand; the message says what to change."""


def assigned_gpus(workers: int, devices: Sequence[str], per_worker: float | None) -> list[tuple[str, ...] | None]:
    """Return the GPUs of each worker, assigned round robin; None for a worker whose devices are not restricted.

    Args:
        workers: The number of workers on this machine.
        devices: The names of its GPUs.
        per_worker: The number of GPUs of a worker, or the part of one. If it is None, each worker uses one GPU, which
            it shares with others if there are more workers than GPUs.

    Raises:
        TooFewGpus: The machine has fewer GPUs than the workers need.
    """
    if per_worker is None:
        return [(devices[number % len(devices)],) if devices else None for number in range(workers)]
    if per_worker == 0:
        return [()] * workers
    if per_worker >= 1:
        each = int(per_worker)
        room, groups = len(devices) // each, [tuple(devices[at : at + each]) for at in range(0, len(devices), each)]
    else:
        room, groups = int(1 / per_worker + 1e-9) * len(devices), [(device,) for device in devices]
    if workers > room:
        raise TooFewGpus(
            f"--gpus-per-worker {per_worker:g} must leave a GPU for each of {counted(workers, 'worker')}; this "
            f"machine has "
            f"{len(devices)} for {counted(room, 'worker')}. Use fewer --workers, a smaller part such as 0.5, or 0 "
            f"for none"
        )
    return [groups[number % len(groups)] for number in range(workers)]


def on_gpus(worker: ProcessSpec, devices: Sequence[str] | None, per_worker: float | None) -> ProcessSpec:
    """Return a worker that sees only some GPUs, and that must find them if the user has asked for them.

    Args:
        worker: The worker, whose devices are not restricted yet.
        devices: The names of its GPUs; None leaves it as it is.
        per_worker: The number of GPUs that the user has requested; None if there is no request.
    """
    if devices is None:
        return worker
    asked = () if per_worker is None else (f"--gpus={len(devices)}",)
    env = {**worker.env, VISIBLE_DEVICES: ",".join(devices)}
    return replace(worker, args=(*asked, *worker.args), env=env)


def plan(
    settings: TrainSettings, run_dir: str, bind: str = LOOPBACK, resume: bool = False, devices: Sequence[str] = ()
) -> list[ProcessSpec]:
    """Return the processes of a cluster in the order in which they must start.

    Shard 0, the coordinator, is the first and receives all settings of the job. The other shards and the workers
    follow and receive the job from it.

    Args:
        settings: The settings of the job and of its processes.
        run_dir: The run directory.
        bind: `HOST:PORT` on which each server listens.
        resume: Whether the run resumes from its latest checkpoint.
        devices: The names of the GPUs of this machine.

    Raises:
        TooFewGpus: The machine has fewer GPUs than the workers need.
    """
    job = to_flags(settings.model_copy(update={"resume": None}), ServerSettings)
    own = flags_of_shard(settings)
    again = settings.server_restarts
    resuming = ("--resume",) if resume else ()
    first = _server(0, (f"--bind={bind}", f"--run-dir={run_dir}", *job, *resuming), again)
    others = [
        _server(shard, (f"--bind={bind}", "--coordinator={ps-0}", f"--shard={shard}", *own), again, ("ps-0",))
        for shard in range(1, settings.shards)
    ]
    view = [dashboard_process(to_flags(settings, AccessSettings))] if settings.dashboard else []
    gpus = assigned_gpus(settings.workers, devices, settings.gpus_per_worker)
    workers = [_worker(number, settings) for number in range(settings.workers)]
    return [first, *others, *view, *(on_gpus(spec, gpus[spec.number], settings.gpus_per_worker) for spec in workers)]


class ShardFlags(AccessSettings, LogSettings):
    """The settings that a shard other than shard 0 does not receive from the coordinator."""

    transport: str = JobSettings.model_fields["transport"].default
    reconnect_s: float = JobSettings.model_fields["reconnect_s"].default


def flags_of_shard(settings: Settings) -> list[str]:
    """Return the flags of a shard other than shard 0, which receives the settings of the job from the coordinator."""
    return to_flags(settings, ShardFlags)


def dashboard_process(access: Sequence[str] = ()) -> ProcessSpec:
    """Return the process that serves the dashboard; it ends after the job, and the job does not depend on it."""
    args = ("{ps-0}", "--until-over", *access)
    return ProcessSpec("dashboard", "dashboard", 0, "downpour.deploy.dashboard", args, needs=("ps-0",))


def _server(shard: int, args: tuple[str, ...], restarts: int, needs: tuple[str, ...] = ()) -> ProcessSpec:
    env = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **NO_GPU}
    return ProcessSpec(f"ps-{shard}", "ps", shard, "downpour.ps", args, env, needs, restarts)


def _worker(number: int, settings: TrainSettings) -> ProcessSpec:
    own = ["threads", "xla", "weights", "scale"]
    if ":" in settings.model:
        own.append("model")
    if settings.dataset.endswith(".npz"):
        own.append("dataset")
    # A model or dataset of the registry is not passed here: the coordinator sends its name.
    chosen = settings.model_copy(update={name: None for name in ("model", "dataset") if name not in own})
    env = {"OMP_NUM_THREADS": str(settings.threads), **({"TF_CPP_MIN_LOG_LEVEL": "0"} if settings.verbose else {})}
    args = ("--server={ps-0}", f"--worker={number}", *to_flags(chosen, WorkerSettings))
    return ProcessSpec(
        f"worker-{number}", "worker", number, "downpour.worker", args, env, ("ps-0",), settings.worker_restarts
    )
