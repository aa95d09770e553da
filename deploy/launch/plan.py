"""From the settings of a cluster to the processes that make it up. Pure: starts nothing, opens nothing.

A launcher (local processes, compose, ...) consumes the list in order. An address is known only once its
server has announced it, so arguments hold placeholders, `{ps-0}`, which `ProcessSpec.command` fills in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from downpour.deploy.config import TrainSettings
from downpour.protos.credentials import AccessSettings
from downpour.protos.logs import LogSettings
from downpour.protos.settings import ENV_PREFIX, to_flags
from downpour.ps.config import ServerSettings
from downpour.worker.config import WorkerSettings

Role = Literal["ps", "worker"]
LOOPBACK = "127.0.0.1:0"

# Variables that a process of the plan must not see: the plan has said by flags what they say to the launcher.
SAID_BY_FLAGS = frozenset(
    f"{ENV_PREFIX}{name.upper()}"
    for name in (*TrainSettings.model_fields, *("bind", "advertise", "shard", "coordinator", "run_dir"))
)


@dataclass(frozen=True)
class ProcessSpec:
    """One process of a cluster, whoever starts it."""

    name: str  # unique in the cluster: ps-0, worker-3
    role: Role
    number: int  # of the shard or of the worker
    module: str  # what `python -m` runs
    args: tuple[str, ...]  # its arguments; may hold placeholders
    env: Mapping[str, str] = field(default_factory=dict)  # over what the launcher itself has
    needs: tuple[str, ...] = ()  # servers whose address must be known first
    restarts: int = 0  # times that it is started again after it died
    shown: bool = False  # it has the launcher's own output instead of a log
    foreign: bool = False  # it runs a user's program, whose temporary files are the user's

    def command(self, python: str, addresses: Mapping[str, str]) -> list[str]:
        """The command line, with the addresses of `needs` filled in.

        Args:
            python: the interpreter.
            addresses: `HOST:PORT` by the name of the server.

        Raises:
            KeyError: when an address that the process needs is not there.
        """
        args = list(self.args)
        for name in self.needs:
            args = [arg.replace(f"{{{name}}}", addresses[name]) for arg in args]
        return [python, "-P", "-m", self.module, *args]

    def again(self, address: str | None) -> ProcessSpec:
        """The same process after it died: a server listens at its old address and goes on from its last checkpoint."""
        if self.role != "ps" or address is None:
            return self
        kept = [arg for arg in self.args if not arg.startswith("--bind=") and arg != "--resume"]
        resume = ["--resume"] if self.number == 0 else []
        return replace(self, args=(f"--bind={address}", *kept, *resume))


def plan(settings: TrainSettings, run_dir: str, bind: str = LOOPBACK, resume: bool = False) -> list[ProcessSpec]:
    """The processes of a cluster, in the order in which they must start.

    First shard 0, which coordinates, with all settings of the job; then the other shards and the workers,
    which learn the job from it.

    Args:
        settings: of the job and of its processes.
        run_dir: the run's own directory.
        bind: `HOST:PORT` for each server to listen on.
        resume: whether the run goes on from its last checkpoint.
    """
    job = to_flags(settings.model_copy(update={"resume": None}), ServerSettings)
    access = [*to_flags(settings, AccessSettings), *to_flags(settings, LogSettings)]
    again = settings.server_restarts
    resuming = ("--resume",) if resume else ()
    first = _server(0, (f"--bind={bind}", f"--run-dir={run_dir}", *job, *resuming), again)
    others = [
        _server(shard, (f"--bind={bind}", "--coordinator={ps-0}", f"--shard={shard}", *access), again, ("ps-0",))
        for shard in range(1, settings.shards)
    ]
    return [first, *others, *(_worker(number, settings) for number in range(settings.workers))]


def _server(shard: int, args: tuple[str, ...], restarts: int, needs: tuple[str, ...] = ()) -> ProcessSpec:
    env = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return ProcessSpec(f"ps-{shard}", "ps", shard, "downpour.ps", args, env, needs, restarts)


def _worker(number: int, settings: TrainSettings) -> ProcessSpec:
    own = ["threads", "xla", "weights"]
    if ":" in settings.model:
        own.append("model")
    if settings.dataset.endswith(".npz"):
        own.append("dataset")
    # The rest of model and dataset is for the wire: a registry name that the coordinator hands out.
    chosen = settings.model_copy(update={name: None for name in ("model", "dataset") if name not in own})
    env = {"TF_CPP_MIN_LOG_LEVEL": "2", "OMP_NUM_THREADS": str(settings.threads)}
    args = ("--server={ps-0}", f"--worker={number}", *to_flags(chosen, WorkerSettings))
    return ProcessSpec(
        f"worker-{number}", "worker", number, "downpour.worker", args, env, ("ps-0",), settings.worker_restarts
    )
