"""`downpour run --resume RUN_DIR SCRIPT`: merges the settings of an earlier run with those of the command line."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from downpour.deploy.launch.resume import CannotResume
from downpour.deploy.launch.run_dir import has_ended
from downpour.deploy.scripts.script_settings import RunSettings
from downpour.protos.logs import reason_of
from downpour.protos.settings import flag, problems_of
from downpour.ps.config_checks import steps_at_constant_rate

FIXED = ("seed",)  # the script draws other numbers with another one


def resumed_script(settings: RunSettings) -> tuple[RunSettings, Path]:
    """Return the settings of the resumed run of a script, and its run directory.

    Settings of the command line and of the environment take precedence over those of the run.

    Raises:
        CannotResume: There is no such run of a script, it has ended, or a setting differs that cannot change.
    """
    run_dir = Path(settings.resume or "").resolve()
    try:
        saved = {**json.loads((run_dir / "config.json").read_text())["settings"]}  # TypeError if it is no object
        earlier = {name: saved[name] for name in RunSettings.model_fields if name in saved and name != "resume"}
        of_script = bool(saved.get("script"))
    except (OSError, KeyError) as error:
        raise CannotResume(
            f"--resume must name a run directory with a config.json; {run_dir}: {reason_of(error)}"
        ) from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:  # no JSON, or JSON of another kind
        raise CannotResume(
            f"--resume must name a run directory with a config.json; that of {run_dir} is damaged"
        ) from error
    if not of_script:
        raise CannotResume(f"--resume must name a run of a script; {run_dir} is one of `downpour train`.")
    if has_ended(run_dir, 0):
        raise CannotResume(f"--resume must name a run that has not ended; {run_dir} has. Start a new run.")
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    for name in FIXED:
        if name in given and given[name] != earlier.get(name, given[name]):
            raise CannotResume(
                f"cannot resume: {flag(name)} {given[name]} differs from the run's {earlier[name]}. Omit {flag(name)}."
            )
    try:
        merged = RunSettings(**{**earlier, **given})
    except ValidationError as error:
        text = "; ".join(problems_of(error, RunSettings))
        raise CannotResume(f"{run_dir / 'config.json'} must contain valid settings of a run: {text}") from error
    if steps_at_constant_rate(merged.mode):
        raise CannotResume(
            "a run that is resumed must keep the slots of its optimizers on the servers. Received: --mode "
            f"{merged.mode}, with which each worker has slots of its own. Start the script again, without --resume."
        )
    return merged, run_dir
