"""Encodes as JSON what only worker 0 has: the state of its callbacks after `fit`, and logs that are not numbers.

A script may branch on these values, for example on `stopping.stopped_epoch`, and must take the same branch on all
workers. Numbers, strings, small arrays, and lists and dicts of these are encoded; all other values are left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras.src.utils.python_utils import pythonify_logs

from downpour.protos import parameter_server_pb2 as pb

MAX_BYTES = 1 << 20  # of all callbacks; attributes beyond are left out
MAX_ELEMENTS = 65_536  # of an array, a list or a dict
EXCLUDED = ("params", "model", "_model")  # attributes that Keras sets
ARRAY, PAIRS = "array", "pairs"


class Validation:
    """The calls that a validation makes of the hooks of callbacks: worker 0's, which the other workers repeat.

    Attributes:
        batches: The first and the last number of the batches of each step, and its logs.
        logs: The logs of its end.
    """

    def __init__(self, batches: Sequence[tuple[int, int, Mapping[str, Any]]] = (), logs: Any = None) -> None:
        """Record a validation.

        Args:
            batches: The first and the last number of the batches of each step, and its logs.
            logs: The logs of its end.
        """
        self.batches, self.logs = list(batches), logs

    def encode(self) -> str:
        """Return the calls as JSON, without those for batches if they are many."""
        text = json.dumps([[[*numbers, _numbers(logs)] for *numbers, logs in self.batches], _numbers(self.logs or {})])
        return Validation(logs=self.logs).encode() if self.batches and len(text) > MAX_BYTES else text

    @classmethod
    def decode(cls, text: str) -> Validation | None:
        """Return what `encode` has encoded; None for an empty text."""
        return cls(*json.loads(text)) if text else None

    def call(self, callbacks: Sequence[Any]) -> None:
        """Call the hooks of callbacks as the validation did."""
        for callback in callbacks:
            callback.on_test_begin()
        for first, last, logs in self.batches:
            for callback in callbacks:
                callback.on_test_batch_begin(first)
            for callback in callbacks:
                callback.on_test_batch_end(last, dict(logs))
        for callback in callbacks:
            callback.on_test_end(dict(self.logs))


class NotSerializable(TypeError):
    """A value has a type or a size that is not encoded."""


def encode_callbacks(callbacks: Sequence[Any]) -> str:
    """Return the attributes of callbacks as JSON: a list with one entry for each callback."""
    left, states = MAX_BYTES, []
    for callback in callbacks:
        state = {}
        for name, value in vars(callback).items():
            if name in EXCLUDED:
                continue
            try:
                text = json.dumps(_encode(value))
            except (NotSerializable, ValueError, RecursionError):
                continue
            if len(text) <= left:
                left -= len(text)
                state[name] = json.loads(text)
        states.append({"of": type(callback).__name__, "state": state})
    return json.dumps(states)


def encode_logs(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by name as the fields `logs` and `other_logs` of a decision, without what is not serializable."""
    numbers, others = {}, {}
    for name, value in values.items():
        try:
            if np.ndim(value) == 0 and not isinstance(value, str | dict):
                numbers[name] = float(value)
            else:
                others[name] = _encode(value)
        except (TypeError, ValueError):
            continue
    return {"logs": numbers, "other_logs": json.dumps(others) if others else ""}


def logs_of(decision: pb.Decision) -> dict[str, Any]:
    """Return the values that `encode_logs` has encoded."""
    others = json.loads(decision.other_logs) if decision.other_logs else {}
    return {**decision.logs, **{name: _decode(value) for name, value in others.items()}}


def restore_callbacks(callbacks: Sequence[Any], encoded: str) -> None:
    """Set the attributes of callbacks to those that `encode_callbacks` has encoded.

    A callback of another class than worker 0's at the same place is not changed.

    Args:
        callbacks: The callbacks of this worker, in the order of worker 0's.
        encoded: The state of worker 0's callbacks; nothing is changed if it is empty.
    """
    states = json.loads(encoded) if encoded else []
    for callback, state in zip(callbacks, states, strict=False):
        if state["of"] == type(callback).__name__:
            for name, value in state["state"].items():
                _restore(callback, name, _decode(value))


def _numbers(logs: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in pythonify_logs(logs).items() if np.ndim(value) == 0}


def _restore(callback: Any, name: str, value: Any) -> None:
    """Set an attribute; a list or dict of the script stays the same object, which the script may read."""
    own = vars(callback).get(name)
    if isinstance(own, list) and isinstance(value, list):
        own[:] = value
    elif isinstance(own, dict) and isinstance(value, dict):
        own.clear()
        own.update(value)
    else:
        object.__setattr__(callback, name, value)


def _encode(value: Any) -> Any:
    """Return a value of the types that JSON has.

    Raises:
        NotSerializable: The type or the size of the value is not supported.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return _encode(value.item())
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.size <= MAX_ELEMENTS:
        return {ARRAY: value.tolist(), "dtype": value.dtype.str}
    if isinstance(value, list | tuple) and len(value) <= MAX_ELEMENTS:
        return [_encode(each) for each in value]
    if isinstance(value, dict) and len(value) <= MAX_ELEMENTS:
        return {PAIRS: [[_encode(key), _encode(each)] for key, each in value.items()]}
    raise NotSerializable(type(value).__name__)


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(each) for each in value]
    if isinstance(value, dict) and ARRAY in value:
        return np.array(value[ARRAY], np.dtype(value["dtype"]))
    if isinstance(value, dict):
        return {_key(key): _decode(each) for key, each in value[PAIRS]}
    return value


def _key(encoded: Any) -> Any:
    return tuple(map(_key, encoded)) if isinstance(encoded, list) else encoded
