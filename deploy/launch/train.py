"""`downpour train`: runs a job on this machine, or shows the plan of its processes."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from downpour.deploy.config import TrainSettings
from downpour.deploy.launch.gpus import devices_here
from downpour.deploy.launch.launcher import Launcher
from downpour.deploy.launch.plan import VISIBLE_DEVICES, ProcessSpec, TooFewGpus, assigned_gpus, plan
from downpour.deploy.launch.resume import CannotResume, resumed
from downpour.deploy.launch.run_dir import make_run_dir
from downpour.deploy.view.terminal import open_screen
from downpour.protos.logs import print_line

EXIT_USAGE = 2
PLANNED = "RUN_DIR"  # the run directory in a plan that is only shown


def train(settings: TrainSettings) -> int:
    """Run the job of `downpour train` and return the exit status."""
    resuming = settings.resume is not None
    if settings.dry_run:
        return show_plan(settings)
    try:
        if resuming:
            settings, run_dir = resumed(settings)
        devices = devices_here(os.environ)
        assigned_gpus(settings.workers, devices, settings.gpus_per_worker)  # before the run directory exists
        if resuming:
            (run_dir / "logs").mkdir(exist_ok=True)
        else:
            run_dir = make_run_dir(Path(settings.runs_dir), settings.model, datetime.now(UTC))
    except (CannotResume, TooFewGpus) as failure:
        print(f"downpour train: {failure}", file=sys.stderr)
        return EXIT_USAGE
    except OSError as failure:
        reason = f"{failure.strerror}: {failure.filename}"
        print(f"downpour train: --runs-dir must be a writable folder; {reason}", file=sys.stderr)
        return EXIT_USAGE
    specs = plan(settings, str(run_dir), resume=resuming, devices=devices)
    return Launcher(specs, run_dir, open_screen(settings.verbose), settings.drain_timeout_s).run()


def show_plan(settings: TrainSettings) -> int:
    """Print the commands of all processes without starting any, and return the exit status."""
    try:
        settings, run_dir = resumed(settings) if settings.resume is not None else (settings, Path(PLANNED))
        resuming = run_dir != Path(PLANNED)
        specs = plan(settings, str(run_dir), resume=resuming, devices=devices_here(os.environ))
    except (CannotResume, TooFewGpus) as failure:
        print(f"downpour train: {failure}", file=sys.stderr)
        return EXIT_USAGE
    show_commands(specs)
    return 0


def show_commands(specs: Sequence[ProcessSpec]) -> None:
    """Print the command of every process of a plan, after the variable that restricts its GPUs."""
    for spec in specs:
        addresses = {name: f"ADDRESS-OF-{name}" for name in spec.needs}
        gpus = f"{VISIBLE_DEVICES}={shlex.quote(spec.env[VISIBLE_DEVICES])} " if VISIBLE_DEVICES in spec.env else ""
        print_line(f"{spec.name}: {gpus}{shlex.join(spec.command('python', addresses))}")
