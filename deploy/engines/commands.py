"""`downpour slurm [flags] [SCRIPT]` and `downpour auto [flags] [SCRIPT]`: this process is one task of an engine's job.

With SCRIPT, the job trains a Keras script as `downpour run` does; without, a built-in model as `downpour train` does.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

from downpour.deploy.certs import CertsSettings, certs
from downpour.deploy.engines.announcement import host_of_node
from downpour.deploy.engines.place import BadPlace, EnginePlace, detected, slurm
from downpour.deploy.engines.settings import EngineRunSettings, EngineTrainSettings
from downpour.deploy.engines.task import EngineTask, TaskRequest
from downpour.deploy.engines.task_plan import task_plan
from downpour.deploy.launch.gpus import devices_here
from downpour.deploy.launch.plan import ProcessSpec, TooFewGpus, plan
from downpour.deploy.launch.train import EXIT_USAGE, show_commands
from downpour.deploy.scripts.script_checks import BadScript, check_script
from downpour.deploy.scripts.script_launcher import Notes, script_plan
from downpour.deploy.scripts.script_settings import refused_variables
from downpour.deploy.scripts.tf_config import VARIABLE
from downpour.deploy.view.terminal import open_screen
from downpour.protos.logs import print_line
from downpour.protos.settings import flag, parse, split_positional

ABOUT = "Train as one process of a job that an engine has started. SCRIPT and its arguments follow the flags; without "
ABOUT += "SCRIPT, a built-in model is trained."
ACCESS = "access"  # in the run directory: certificates and a token, which all tasks read
Settings = EngineTrainSettings | EngineRunSettings
Command = Callable[[list[str]], int]


class BadJob(ValueError):
    """The settings do not fit the place; the message says what to do."""


def slurm_command(argv: list[str]) -> int:
    """Run `downpour slurm` and return its exit status."""
    _help_if_asked("downpour slurm", argv)
    try:
        return run_here("downpour slurm", argv, slurm(os.environ))
    except (BadPlace, BadJob, TooFewGpus) as error:
        print(f"downpour slurm: {error}", file=sys.stderr)
        return EXIT_USAGE


def _help_if_asked(prog: str, argv: Sequence[str]) -> None:
    """Show the help and exit if a flag before the script asks for it: help does not need the engine."""
    flags, _ = split_positional(EngineTrainSettings, argv)
    if {"-h", "--help"} & set(flags):
        parse(EngineTrainSettings, ["--help"], prog, ABOUT)


def auto_command(argv: list[str], run: Command, train: Command) -> int:
    """Run `downpour auto`: detect the engine that has started this process, name it, and run its part of the job.

    Args:
        argv: The flags, the script and its arguments.
        run: The command `downpour run`.
        train: The command `downpour train`.
    """
    _help_if_asked("downpour auto", argv)
    try:
        if os.environ.get(VARIABLE, "").strip():
            print_line(f"downpour auto: {VARIABLE} is set: this is one process of its cluster", error=True)
            return run(argv)
        place = detected(os.environ, socket.getfqdn)
        if place is not None:
            print_line(f"downpour auto: found {place.engine}: {place.found}", error=True)
            return run_here("downpour auto", argv, place)
    except (BadPlace, BadJob, TooFewGpus) as error:
        print(f"downpour auto: {error}", file=sys.stderr)
        return EXIT_USAGE
    print_line("downpour auto: found no engine: all processes run on this machine", error=True)
    script = split_positional(EngineTrainSettings, argv)[1]
    return (run if script else train)(argv)


def run_here(prog: str, argv: Sequence[str], place: EnginePlace) -> int:
    """Run the processes of a place and return the exit status.

    Raises:
        BadPlace: The place cannot be part of such a job.
        BadJob: The settings do not fit the place.
        TooFewGpus: Its worker cannot have its GPUs.
    """
    flags, script = split_positional(EngineTrainSettings, argv)
    settings: Settings
    if script:
        settings = parse(EngineRunSettings, flags, prog, ABOUT)
        if refusal := refused_variables(os.environ, placed=True):
            raise BadJob(refusal)
        try:
            check_script(script)
        except BadScript as error:
            print(error, file=sys.stderr)
            return error.code
    else:
        settings = parse(EngineTrainSettings, flags, prog, ABOUT)
    if settings.dashboard:
        raise BadJob("--dashboard works on one machine only; run downpour dashboard HOST:PORT where you can open it")
    settings, place = sized(settings, place.at_port(settings.port))
    run_dir = Path(settings.runs_dir).absolute() / place.job
    if isinstance(settings, EngineTrainSettings) and settings.resume is not None:
        raise BadJob(f"--resume is automatic here: a run in {run_dir} is continued if it has a checkpoint. Omit it")
    if place.rank == 0 and not settings.dry_run:
        (run_dir / "logs").mkdir(parents=True, exist_ok=True)
    settings = with_access(settings, place, run_dir)
    job = whole_job(settings, place, run_dir, script)
    specs = task_plan(place, job, settings.shards, devices_here(os.environ), settings.gpus_per_worker)
    if settings.dry_run:
        show_commands(specs)
        return 0
    own = {"DOWNPOUR_INSECURE": "true"} if settings.insecure else {}
    request = TaskRequest(
        place,
        [with_variables(spec, own) for spec in specs],
        run_dir,
        settings.host or host_of_node(os.environ.get("SLURMD_NODENAME", "")),
        settings,
        lambda: requeue(settings, place),
    )
    return EngineTask(request, Notes() if script else open_screen(False)).run()


def sized(settings: Settings, place: EnginePlace) -> tuple[Settings, EnginePlace]:
    """Return the settings with the number of workers that the engine has started, and the place with its size.

    Raises:
        BadPlace: No task is left for a worker.
        BadJob: --workers is given and differs.
    """
    given = "workers" in settings.model_fields_set
    if not place.size:
        if not given:
            raise BadJob(
                "--workers must be given: a pod cannot read how many completions its Job has from its environment"
            )
        return settings, place.of_size(settings.workers)
    workers = place.workers(settings.shards)
    if given and settings.workers != workers:
        raise BadJob(
            f"--workers must be the number of tasks that {place.engine} leaves for workers, {workers}; received "
            f"{settings.workers}. Omit it, or change the number of tasks"
        )
    return settings.model_copy(update={"workers": workers}), place


def with_access(settings: Settings, place: EnginePlace, run_dir: Path) -> Settings:
    """Return settings with TLS and a token of the job's own, if its tasks share a folder and no other is given.

    Raises:
        BadJob: The certificates cannot be created.
    """
    if place.is_node or settings.insecure or settings.tls_dir or settings.dry_run:
        return settings
    folder = run_dir / ACCESS
    if place.rank == 0 and not folder.is_dir():
        folder.mkdir(0o700)
        with redirect_stdout(None):
            code = certs(CertsSettings(folder=str(folder)))
        if code:
            folder.rmdir()
            raise BadJob(f"give {flag('tls_dir')} with certificates, or {flag('insecure')} in a network that you trust")
    return settings.model_copy(update={"tls_dir": str(folder)})


def whole_job(settings: Settings, place: EnginePlace, run_dir: Path, script: Sequence[str]) -> list[ProcessSpec]:
    """Return the processes of the whole job; each task assigns its own GPUs."""
    settings = settings.model_copy(update={"gpus_per_worker": None})
    if isinstance(settings, EngineRunSettings):
        return script_plan(settings, str(run_dir), script)
    begun = place.rank == 0 and any((run_dir / "checkpoints").glob("*"))
    return plan(settings, str(run_dir), resume=begun)


def with_variables(spec: ProcessSpec, own: Mapping[str, str]) -> ProcessSpec:
    """Return a process with more variables."""
    return replace(spec, env={**spec.env, **own})


def requeue(settings: Settings, place: EnginePlace) -> None:
    """Put the job back into Slurm's queue, if the user asked for it; this ends all its tasks."""
    if settings.requeue and place.engine == "Slurm":
        print_line("downpour slurm: the job is put back into the queue", error=True)
        subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=False)
