"""What worker 0 alone has seen, for the others: what its callbacks hold after `fit`, and logs that are no numbers.

A script may go on by these, `stopping.stopped_epoch` say, and must do so alike on all workers. Numbers, texts, small
arrays, and lists and dicts of these travel as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MOST_BYTES = 1 << 20  # of all callbacks; what does not fit stays behind
MOST_ELEMENTS = 65_536  # of an array, or of a list
NOT_SAID = ("params", "model", "_model")
ARRAY, PAIRS = "array", "pairs"


class Untold(TypeError):
    """A value that is not said."""


def state_of(callbacks: Sequence[Any]) -> str:
    """What the callbacks hold, as JSON: by callback, then by attribute."""
    left, states = MOST_BYTES, []
    for callback in callbacks:
        state = {}
        for name, value in vars(callback).items():
            if name in NOT_SAID:
                continue
            try:
                text = json.dumps(_coded(value))
            except (Untold, ValueError, RecursionError):
                continue
            if len(text) <= left:
                left -= len(text)
                state[name] = json.loads(text)
        states.append({"of": type(callback).__name__, "state": state})
    return json.dumps(states)


def said(values: Mapping[str, Any]) -> str:
    """Values by name as JSON; what does not travel is left out."""
    kept = {}
    for name, value in values.items():
        try:
            kept[name] = _coded(value)
        except Untold:
            continue
    return json.dumps(kept) if kept else ""


def heard(told: str) -> dict[str, Any]:
    """What `said` has said."""
    return {name: _decoded(value) for name, value in json.loads(told).items()} if told else {}


def restore(callbacks: Sequence[Any], told: str) -> None:
    """Gives the callbacks what `state_of` has said of worker 0's."""
    states = json.loads(told) if told else []
    for callback, state in zip(callbacks, states, strict=False):
        if state["of"] == type(callback).__name__:
            for name, value in state["state"].items():
                object.__setattr__(callback, name, _decoded(value))


def _coded(value: Any) -> Any:
    """A value as JSON has it.

    Raises:
        Untold: It is of a kind, or a size, that does not travel.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return _coded(value.item())
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.size <= MOST_ELEMENTS:
        return {ARRAY: value.tolist(), "dtype": value.dtype.str}
    if isinstance(value, list | tuple) and len(value) <= MOST_ELEMENTS:
        return [_coded(each) for each in value]
    if isinstance(value, dict) and len(value) <= MOST_ELEMENTS:
        return {PAIRS: [[_coded(key), _coded(each)] for key, each in value.items()]}
    raise Untold(type(value).__name__)


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(each) for each in value]
    if isinstance(value, dict) and ARRAY in value:
        return np.array(value[ARRAY], np.dtype(value["dtype"]))
    if isinstance(value, dict):
        return {_key(key): _decoded(each) for key, each in value[PAIRS]}
    return value


def _key(coded: Any) -> Any:
    return tuple(map(_key, coded)) if isinstance(coded, list) else coded
