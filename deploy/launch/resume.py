"""`downpour train --resume RUN_DIR`: merges the settings of an earlier run with those of the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from downpour.deploy.config import TrainSettings
from downpour.deploy.launch.run_dir import has_ended
from downpour.protos.logs import reason_of
from downpour.protos.settings import flag, problems_of

FIXED = ("model", "dataset", "validation_split", "seed", "batch_size", "optimizer")


class CannotResume(Exception):
    """The run cannot be resumed; the message gives the reason."""


def resumed(settings: TrainSettings) -> tuple[TrainSettings, Path]:
    """Return the settings of the resumed run, and its run directory.

    Settings of the command line and of the environment take precedence over those of the run. Settings on which its
    checkpoints depend cannot change.

    Raises:
        CannotResume: There is no such run, or a setting differs that cannot change.
    """
    run_dir = Path(settings.resume or "").resolve()
    try:
        config = json.loads((run_dir / "config.json").read_text())
        saved = {**config["settings"]}  # TypeError if it is no object
        earlier = {name: saved[name] for name in TrainSettings.model_fields if name in saved and name != "resume"}
        earlier |= _weights(config)
    except (OSError, KeyError) as error:
        raise CannotResume(
            f"--resume must name a run directory with a config.json; {run_dir}: {reason_of(error)}"
        ) from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:  # no JSON, or JSON of another kind
        raise CannotResume(
            f"--resume must name a run directory with a config.json; that of {run_dir} is damaged"
        ) from error
    given = {name: getattr(settings, name) for name in settings.model_fields_set if name != "resume"}
    for name in FIXED:
        if name in given and name in earlier and given[name] != earlier[name]:
            raise CannotResume(
                f"cannot resume: {flag(name)} {given[name]} differs from the run's {earlier[name]}. "
                f"Omit {flag(name)} to resume with {earlier[name]}, or start a new run."
            )
    try:
        merged = TrainSettings(**{**earlier, **given})
    except ValidationError as error:
        text = "; ".join(problems_of(error, TrainSettings))
        raise CannotResume(f"{run_dir / 'config.json'} must contain valid settings of a run: {text}") from error
    if has_ended(run_dir, merged.epochs):
        raise CannotResume(
            f"--resume must name a run that has not ended; {run_dir} has: its model and its summary are complete. Give "
            "more --epochs than it has, or start a new run."
        )
    return merged, run_dir


def _weights(config: dict[str, Any]) -> dict[str, str]:
    """Return the file of weights that the run's workers began with: frozen weights are in no checkpoint."""
    for group in config.get("workers", []):
        path = group["facts"].get("weights")
        if path and Path(path).exists():
            return {"weights": path}
    return {}
