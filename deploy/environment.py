"""The environment of the processes that a launcher starts."""

from __future__ import annotations

import os
import site
from collections.abc import Collection, Mapping
from pathlib import Path


def python_path(inherited: str) -> str:
    """`PYTHONPATH` with which a child finds the project as this process did, installed or not."""
    root = str(Path(__file__).resolve().parent.parent)
    places = inherited.split(os.pathsep) if inherited else []
    if root in site.getsitepackages() or root in places:
        return inherited
    return os.pathsep.join([root, *places])


def child_environment(inherited: Mapping[str, str], own: Mapping[str, str], hidden: Collection[str]) -> dict[str, str]:
    """What a process of the plan finds in its environment.

    Args:
        inherited: the launcher's own environment.
        own: what the plan says for this process; wins over what is inherited.
        hidden: variables that the child must not see.
    """
    kept = {name: value for name, value in inherited.items() if name.upper() not in hidden}
    path = python_path(inherited.get("PYTHONPATH", ""))
    return {**kept, "PYTHONUNBUFFERED": "1", **({"PYTHONPATH": path} if path else {}), **own}
