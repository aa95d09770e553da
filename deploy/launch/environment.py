"""The environment of the processes that a launcher starts."""

from __future__ import annotations

import json
import os
import site
from collections.abc import Collection, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import downpour

DISTRIBUTION = "downpour-ps"


def python_path(inherited: str) -> str:
    """Return the `PYTHONPATH` with which a child process finds this copy of the package.

    An installed copy, editable or not, needs none. The project's folders must not shadow a user's modules.
    """
    root = Path(downpour.__file__).resolve().parent.parent
    places = inherited.split(os.pathsep) if inherited else []
    if str(root) in site.getsitepackages() or str(root) in places or _is_installed_from(root):
        return inherited
    return os.pathsep.join([*places, str(root)])


def _is_installed_from(root: Path) -> bool:
    """Return whether pip has installed the package from `root` in editable mode."""
    try:
        origin = json.loads(distribution(DISTRIBUTION).read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return False
    editable = origin.get("dir_info", {}).get("editable", False)
    return bool(editable) and origin.get("url") == root.as_uri()


def hash_seed(inherited: Mapping[str, str], seed: int) -> str:
    """Return a value of `PYTHONHASHSEED` for all workers of a script, so that sets have one order everywhere."""
    given = inherited.get("PYTHONHASHSEED", "")
    return given if given.isdigit() else str(seed)


def child_environment(inherited: Mapping[str, str], own: Mapping[str, str], hidden: Collection[str]) -> dict[str, str]:
    """Return the environment of a child process.

    Args:
        inherited: The environment of the launcher.
        own: The variables of this process, which take precedence over the inherited ones.
        hidden: The names of inherited variables that are left out.
    """
    kept = {name: value for name, value in inherited.items() if name.upper() not in hidden}
    path = python_path(inherited.get("PYTHONPATH", ""))
    return {**kept, "PYTHONUNBUFFERED": "1", **({"PYTHONPATH": path} if path else {}), **own}
