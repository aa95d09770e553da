"""Registry of the launchers: every way to start the processes of a job, one row each.

The command line, `downpour bench launchers` and the test of the launchers' contract read this table, so a new launcher
is one row here. Importing it loads neither NumPy nor gRPC.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from downpour.deploy.compose_project import SUMMARY, Project
from downpour.deploy.launch.started_job import (
    LauncherEntry,
    LaunchRequest,
    StartedJob,
    announced_address,
    await_address,
    read_summary,
    start_command,
)

# ---------------------------------------------------------------------------------------------------- downpour train


def train_command(argv: list[str]) -> int:
    """Run `downpour train` and return its exit status."""
    from downpour.deploy.config import TrainSettings
    from downpour.protos.settings import parse

    about = "Train a model on a local cluster: servers hold the weights, workers compute gradients."
    settings = parse(TrainSettings, argv, "downpour train", about)
    from downpour.deploy.launch.train import train

    return train(settings)


@contextmanager
def start_local(request: LaunchRequest) -> Iterator[StartedJob]:
    """Start a job with `downpour train`."""
    runs = request.folder / "runs"
    with ExitStack() as stack:
        flags = [f"--workers={request.workers}", f"--runs-dir={runs}", *request.flags]
        launcher = start_command(stack, request, "launcher", ["train", *flags])
        latest = runs / "latest"

        def address() -> str:
            for log in runs.glob("*/logs/ps-0.log"):
                return announced_address(log)
            raise LookupError(f"no run has begun in {runs}")

        yield StartedJob({"launcher": launcher}, address, lambda: read_summary(latest), latest)


# ------------------------------------------------------------------------------------- downpour ps, downpour worker


@contextmanager
def start_separately(request: LaunchRequest) -> Iterator[StartedJob]:
    """Start each process with a command of its own: `downpour ps`, and `downpour worker` once per worker."""
    run_dir = request.folder / "run"
    with ExitStack() as stack:
        flags = [f"--workers={request.workers}", f"--run-dir={run_dir}", *request.flags]
        server = start_command(stack, request, "ps", ["ps", *flags])
        address = await_address(server, request.folder / "ps.log")
        workers = {
            name: start_command(stack, request, name, ["worker", f"--server={address}"])
            for name in (f"worker-{number}" for number in range(request.workers))
        }
        yield StartedJob({**workers, "ps": server}, lambda: address, lambda: read_summary(run_dir), run_dir)


@contextmanager
def start_with_tf_config(request: LaunchRequest, evaluator: bool = False) -> Iterator[StartedJob]:
    """Start `downpour ps` and `downpour worker`, which read their place in the cluster from `TF_CONFIG`.

    Args:
        request: The job.
        evaluator: Whether to add a worker that only evaluates.
    """
    run_dir = request.folder / "run"
    others = [f"127.0.0.1:{number}" for number in range(1, request.workers + 1)]
    cluster = {"ps": ["127.0.0.1:0"], "chief": others[:1], "worker": others[1:]}

    def start(name: str, command: Sequence[str], kind: str, index: int) -> subprocess.Popen[bytes]:
        config = {"cluster": cluster, "task": {"type": kind, "index": index}, "environment": "cloud"}
        return start_command(stack, request, name, command, {"TF_CONFIG": json.dumps(config)})

    with ExitStack() as stack:
        server = start("ps", ["ps", f"--run-dir={run_dir}", *request.flags], "ps", 0)
        address = await_address(server, request.folder / "ps.log")
        cluster["ps"] = [address]
        tasks = [("chief", 0), *(("worker", index) for index in range(request.workers - 1))]
        tasks += [("evaluator", 0)] if evaluator else []
        workers = {f"{kind}-{index}": start(f"{kind}-{index}", ["worker"], kind, index) for kind, index in tasks}
        yield StartedJob({**workers, "ps": server}, lambda: address, lambda: read_summary(run_dir), run_dir)


# ------------------------------------------------------------------------------------------------------------ Slurm


def slurm_command(argv: list[str]) -> int:
    """Run `downpour slurm` and return its exit status."""
    from downpour.deploy.engines.commands import slurm_command

    return slurm_command(argv)


@contextmanager
def start_slurm(request: LaunchRequest) -> Iterator[StartedJob]:
    """Submit a job with `sbatch`, one task for a server and one for each worker, and wait for it."""
    runs = request.folder / "runs"
    own = [sys.executable, "-P", "-m", "downpour.deploy.cli", "slurm", f"--runs-dir={runs}"]
    own += ["--insecure", *request.flags]
    submit = [
        "sbatch", "--wait", f"--ntasks={request.workers + 1}", "--parsable", f"--chdir={request.folder}",
        f"--output={request.folder / 'slurm.log'}", "--wrap", f"srun {shlex.join(own)}",
    ]  # fmt: skip
    with subprocess.Popen(submit, env={**os.environ, **request.environment}, stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None
        number = job.stdout.readline().strip()

        def address() -> str:
            for file in runs.glob("*/places/*.json"):
                return str(json.loads(file.read_text())["address"])
            raise LookupError(f"no server has announced its address in {runs} yet")

        try:
            run_dir = runs / f"slurm-{number}.0"
            yield StartedJob({"sbatch": job}, address, lambda: read_summary(run_dir), run_dir)
        finally:
            subprocess.run(["scancel", number], check=False)


# -------------------------------------------------------------------------------------------------------------- Ray


def ray_command(argv: list[str]) -> int:
    """Run `downpour ray` and return its exit status."""
    from downpour.deploy.ray.command import ray_command

    return ray_command(argv)


@contextmanager
def start_ray(request: LaunchRequest) -> Iterator[StartedJob]:
    """Start a job with `downpour ray` on the cluster that `RAY_ADDRESS` names."""
    runs = request.folder / "runs"
    with ExitStack() as stack:
        flags = [f"--workers={request.workers}", f"--runs-dir={runs}", "--insecure", *request.flags]
        driver = start_command(stack, request, "driver", ["ray", *flags])

        def address() -> str:
            for log in runs.glob("*/logs/ps-0.log"):
                return announced_address(log)
            raise LookupError(f"no run has begun in {runs}")

        latest = runs / "latest"
        yield StartedJob({"driver": driver}, address, lambda: read_summary(latest), latest)


# --------------------------------------------------------------------------------------------------- docker compose


@contextmanager
def start_compose(request: LaunchRequest) -> Iterator[StartedJob]:
    """Start a job with `docker compose up`, from images that exist."""
    settings = dict(flag.removeprefix("--").replace("-", "_").split("=", 1) for flag in request.flags)
    project = Project(
        request.compose,
        {**os.environ, **request.environment},
        ["docker-compose.yml"],
        **{**settings, "workers": request.workers},
    )

    def unknown() -> str:
        raise LookupError("the coordinator of a job in containers cannot be reached from outside them")

    try:
        with project.up() as process:
            yield StartedJob({"compose": process}, unknown, lambda: dict(json.loads(project.in_volume(SUMMARY))))
    finally:
        project.down()


LAUNCHERS: dict[str, LauncherEntry] = {
    "train": LauncherEntry(
        "train a model on a local cluster", start_local, train_command, restarts_workers=True, restarts_servers=True
    ),
    "separate": LauncherEntry("one command per process: downpour ps and downpour worker", start_separately),
    "TF_CONFIG": LauncherEntry("one command per process, with its place from TF_CONFIG", start_with_tf_config),
    "slurm": LauncherEntry(
        "train as one task of a Slurm job",
        start_slurm,
        slurm_command,
        restarts_workers=True,
        restarts_servers=True,
        engine="slurm",
    ),
    "ray": LauncherEntry(
        "train on a Ray cluster",
        start_ray,
        ray_command,
        restarts_workers=True,
        restarts_servers=True,
        engine="ray",
    ),
    "compose": LauncherEntry(
        "docker compose with the project's images", start_compose, restarts_workers=True, in_containers=True
    ),
}
