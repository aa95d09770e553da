"""Runs the real launcher with real servers and the workers of worker.py.

python -m downpour.bench.chaos.launch RUN_DIR [--resume] [flags of `downpour train`]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from downpour.deploy.config import TrainSettings
from downpour.deploy.launch.launcher import Launcher
from downpour.deploy.launch.plan import ProcessSpec, plan
from downpour.deploy.view.terminal import open_screen
from downpour.protos.settings import parse


def specs_of(settings: TrainSettings, run_dir: Path, resume: bool) -> list[ProcessSpec]:
    """Return the plan of a cluster in which the workers run `downpour.bench.chaos.worker`."""
    found = []
    for spec in plan(settings, str(run_dir), resume=resume):
        found.append(replace(spec, module="downpour.bench.chaos.worker") if spec.role == "worker" else spec)
    return found


def main(argv: Sequence[str]) -> int:
    """Run the cluster and return the launcher's exit status."""
    run_dir, rest = Path(argv[0]), list(argv[1:])
    resume = "--resume" in rest
    settings = parse(TrainSettings, [flag for flag in rest if flag != "--resume"], "chaos launch")
    (run_dir / "logs").mkdir(parents=True, exist_ok=True)
    return Launcher(specs_of(settings, run_dir, resume), run_dir, open_screen(True)).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
