"""`downpour ray [flags] [SCRIPT]`: trains a Keras script, or a built-in model, on a Ray cluster.

The command is the driver: it shows the progress and the output of worker 0, keeps the logs, and ends with the job.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from downpour.deploy.launch.run_dir import make_run_dir
from downpour.deploy.ray.job import CannotRun, RayJob, connect, disconnect
from downpour.deploy.ray.settings import RayRunSettings, RayTrainSettings, with_range
from downpour.deploy.scripts.notebook_screen import NotebookScreen
from downpour.deploy.scripts.script_checks import BadScript, check_script, name_of
from downpour.deploy.scripts.script_launcher import LEADER
from downpour.deploy.scripts.script_settings import refused_variables
from downpour.deploy.view.terminal import open_screen
from downpour.protos.settings import parse, split_positional

PROG = "downpour ray"
ABOUT = (
    "Train on a Ray cluster. SCRIPT and its arguments follow the flags; without SCRIPT, a built-in model is trained."
)
EXIT_USAGE = 2


def ray_command(argv: list[str]) -> int:
    """Run `downpour ray` and return its exit status."""
    try:
        flags, script = split_positional(RayTrainSettings, argv)
        flags = with_range(flags)
        if not script:
            settings = parse(RayTrainSettings, flags, PROG, ABOUT)
            return run_job(settings, [], settings.model)
        check_script(script)
        if refusal := refused_variables(os.environ):
            print(f"{PROG}: {refusal}", file=sys.stderr)
            return EXIT_USAGE
        return run_job(parse(RayRunSettings, flags, PROG, ABOUT), script, name_of(script))
    except BadScript as error:
        print(error, file=sys.stderr)
        return error.code
    except (CannotRun, ValueError) as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return EXIT_USAGE


def run_job(settings: RayTrainSettings | RayRunSettings, script: list[str], name: str) -> int:
    """Run one job and return its exit status.

    Raises:
        CannotRun: There is no cluster, or it has no room.
    """
    if settings.dashboard or settings.dry_run:
        raise CannotRun("--dashboard and --dry-run work on one machine only: use `downpour dashboard latest` instead")
    if isinstance(settings, RayTrainSettings) and settings.resume is not None:
        raise CannotRun("--resume is not possible on a Ray cluster yet: use `downpour train --resume`")
    connect(settings.address)
    try:
        run_dir = make_run_dir(Path(settings.runs_dir).absolute(), name, datetime.now(UTC))
        log = run_dir / "logs" / f"{LEADER}.log"
        screen = NotebookScreen(log) if script else open_screen(False)
        return RayJob(settings, script).run(run_dir, screen)[0]
    finally:
        disconnect()
