"""`downpour train --resume RUN_DIR`: the settings of an earlier run, with what is given anew."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from downpour.deploy.config import TrainSettings
from downpour.protos.settings import flag

FIXED = ("model", "dataset", "validation_split", "seed", "batch_size", "optimizer")


class CannotResume(Exception):
    """The run cannot be gone on with; the message says why."""


def resumed(settings: TrainSettings) -> tuple[TrainSettings, Path]:
    """The settings to go on with, and the run directory.

    What is given on the command line or in the environment holds, else what the run was begun with; what its
    checkpoints depend on cannot change.

    Raises:
        CannotResume: There is no such run, or something cannot change.
    """
    run_dir = Path(settings.resume or "").resolve()
    try:
        saved = json.loads((run_dir / "config.json").read_text())["settings"]
        begun = {name: saved[name] for name in TrainSettings.model_fields if name in saved and name != "resume"}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CannotResume(f"--resume must name a run directory with its config.json; {run_dir}: {error}") from error
    given = {name: getattr(settings, name) for name in settings.model_fields_set if name != "resume"}
    for name in FIXED:
        if name in given and name in begun and given[name] != begun[name]:
            raise CannotResume(
                f"a run must be gone on with the {flag(name)} it was begun with, {begun[name]!r}; "
                f"received {given[name]!r}. Leave {flag(name)} out."
            )
    try:
        return TrainSettings(**{**begun, **given}), run_dir
    except ValidationError as error:
        raise CannotResume(f"{run_dir / 'config.json'} does not hold the settings of a run: {error}") from error
