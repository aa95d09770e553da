"""Trees of arrays (nested dicts and lists) as named arrays and JSON, for another process and without pickle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

SEPARATOR = "/"


def flatten(name: str, value: Any, into: dict[str, np.ndarray]) -> Any:
    """Put the arrays of a tree into `into`, and return the tree with the names of its arrays in their places.

    Raises:
        TypeError: The tree holds something other than arrays of numbers and texts.
    """
    if value is None:
        return None
    if isinstance(value, Mapping):
        return {str(key): flatten(f"{name}{SEPARATOR}{key}", each, into) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [flatten(f"{name}{SEPARATOR}{index}", each, into) for index, each in enumerate(value)]
    array = np.asarray(value)
    if array.dtype.kind not in "biufcSU" or not array.ndim:
        raise TypeError(
            f"{name} must be an array of numbers or texts, or a dict or list of some. Received: {array.dtype} of "
            f"shape {array.shape}. Turn it into one, such as np.asarray(x)."
        )
    into[name] = array
    return name


def restore(tree: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Return the tree with its arrays in place of their names."""
    if isinstance(tree, dict):
        return {key: restore(each, arrays) for key, each in tree.items()}
    if isinstance(tree, list):
        return tuple(restore(each, arrays) for each in tree)
    return None if tree is None else arrays[tree]
