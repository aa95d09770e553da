"""Settings from a TOML file whose keys are the names of flags, one file for several commands."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

# The commands that take --config, and their settings: of a built-in model and of a script, where both are possible.
COMMANDS = {
    "train": ("downpour.deploy.config:TrainSettings",),
    "run": ("downpour.deploy.scripts.script_settings:RunSettings",),
    "ps": ("downpour.ps.config:ServerSettings",),
    "worker": ("downpour.worker.config:WorkerSettings",),
    "slurm and auto": (
        "downpour.deploy.engines.settings:EngineTrainSettings",
        "downpour.deploy.engines.settings:EngineRunSettings",
    ),
    "ray": ("downpour.deploy.ray.settings:RayTrainSettings", "downpour.deploy.ray.settings:RayRunSettings"),
}
PLACES = tuple(place for places in COMMANDS.values() for place in places)


class BadJobFile(ValueError):
    """The file cannot be used; each of the arguments is a message about one problem."""


def takes_file(kind: type) -> bool:
    """Return whether these are the settings of a command that takes `--config`."""
    return f"{kind.__module__}:{kind.__name__}" in PLACES


def read(path: str, fields: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the values of the fields that a file sets, and the keys that only other commands know.

    Args:
        path: The file.
        fields: The fields of the settings by name, as pydantic describes them.

    Raises:
        BadJobFile: The file cannot be read, or has a key that no command knows or a value of a wrong type.
    """
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        is_text = not isinstance(error, UnicodeDecodeError)
        reason = (getattr(error, "strerror", None) or str(error)) if is_text else "it is not a text in UTF-8"
        raise BadJobFile(f"--config must be a TOML file that can be read; {path}: {reason}") from error
    values: dict[str, Any] = {}
    others: list[str] = []
    problems: list[str] = []
    own = {name.rstrip("_"): name for name in fields}
    for key, value in content.items():
        name = own.get(key.replace("-", "_"))
        if name is None:
            (others if key.replace("-", "_") in _names() else problems).append(key)
        elif name in values:
            raise BadJobFile(f"{path}: {key} must be given once, with - or with _; remove one of the two")
        else:
            values[name] = value
    problems = [f"{path}: no command has the setting {key}{_near(key)}: correct or remove it" for key in problems]
    for name, value in values.items():
        if must := _must_be(fields[name].annotation, value):
            problems.append(f"{path}: {name} must be {must}; received {value!r}")
    if problems:
        raise BadJobFile(*problems)
    return values, others


def _names() -> set[str]:
    """Return the names of the settings of all commands that take `--config`."""
    found: set[str] = set()
    for place in PLACES:
        module, _, name = place.partition(":")
        found |= {field.rstrip("_") for field in getattr(import_module(module), name).model_fields}
    return found


def _near(key: str) -> str:
    near = difflib.get_close_matches(key.replace("-", "_"), sorted(_names()), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _must_be(annotation: Any, value: Any) -> str:
    """Return what a value must be if its type is wrong for a field, else an empty string."""
    parts = get_args(annotation) if get_origin(annotation) not in (None, Literal) else (annotation,)
    types = {str if get_origin(part) is not None else part for part in parts} - {NoneType}
    if type(value) in types or (float in types and type(value) is int):
        return ""
    if bool in types:
        return "true or false, without quotes"
    if float in types:
        return "a number, without quotes"
    return "a whole number, without quotes" if int in types else "text in quotes"
