"""Nests of arrays (dicts and lists of them) on their way to another process: named arrays and JSON, no pickle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

SEPARATOR = "/"


def flatten(name: str, value: Any, into: dict[str, np.ndarray]) -> Any:
    """Puts the arrays of a nest of dicts and lists into `into`; returns the nest with their names instead.

    Raises:
        TypeError: There is something else than arrays of numbers and texts.
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


def restore(nest: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """The nest with its arrays."""
    if isinstance(nest, dict):
        return {key: restore(each, arrays) for key, each in nest.items()}
    if isinstance(nest, list):
        return tuple(restore(each, arrays) for each in nest)
    return None if nest is None else arrays[nest]
