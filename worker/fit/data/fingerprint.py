"""Fingerprints of the data of `fit`, which must be the same on all workers before they are divided.

A worker that splits or numbers its data otherwise would train on samples that another one tests on.
"""

from __future__ import annotations

import hashlib
import inspect
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from downpour.worker.fit.data.leased_dataset import LeasedDataset

FULL_BYTES = 1 << 26  # of one array; of a longer one, as many bytes are read, in evenly spaced blocks of rows
BLOCKS = 256
MOST_OBJECTS = 100_000  # of an array of strings or other objects
MOST_ENTRIES = 64  # arrays that are named one by one
SCALARS = (str, bytes, int, float, np.generic)
DEPTH = 4  # of the attributes of a PyDataset, and of what they contain


def fingerprints_of(arguments: Mapping[str, Any], given_path: Callable[[str], str] = str) -> dict[str, str]:
    """Return a fingerprint of every array among arguments of `fit`, by the name of the argument and the path in it.

    Arrays and tensors are hashed with their order of rows: completely up to `FULL_BYTES`, otherwise in evenly spaced
    blocks. Of a `tf.data.Dataset`, the tensors that it is made from are hashed; of a `PyDataset`, the arrays among its
    attributes; of a generator that has not begun, those among its arguments and the variables that it refers to. Data
    that are drawn or read while they are iterated over have no fingerprint.

    Args:
        arguments: The arguments by name.
        given_path: A function from a string to the path that the script has given, if this worker has its file in
            another place; any other string is returned unchanged.

    Returns:
        The dtype, shape and digest of each array, such as `float32[100, 3] 5f2c…`.
    """
    found: dict[str, str] = {}
    rest = hashlib.sha256()
    for name, value in arguments.items():
        for path, array in _arrays(name, value, 0):
            text = _fingerprint(array, given_path)
            if len(found) < MOST_ENTRIES:
                found[path] = text
            else:
                rest.update(f"{path} {text}\n".encode())
    if len(found) == MOST_ENTRIES:
        found["further arrays"] = rest.hexdigest()[:16]
    return found


def _arrays(path: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    """Yield the arrays in a value, with the expressions that lead to them."""
    if value is None or depth > DEPTH:
        return
    if isinstance(value, LeasedDataset):
        yield from _arrays(path, value.arrays, depth)
    elif isinstance(value, tf.data.Dataset):
        yield from _of_dataset(path, value, set())
    elif isinstance(value, keras.utils.PyDataset):
        yield from _members(vars(value).items(), f"{path}.{{}}", depth)
    elif isinstance(value, types.GeneratorType):
        yield from _of_generator(path, value, depth)
    elif isinstance(value, tf.RaggedTensor | tf.SparseTensor):
        for place, part in enumerate(tf.nest.flatten(value, expand_composites=True)):
            yield f"{path} (component {place})", part
    elif hasattr(value, "tocoo"):  # a matrix of SciPy
        yield path, np.stack([value.tocoo().row, value.tocoo().col])
        yield f"{path}.data", value.tocoo().data
    elif isinstance(getattr(value, "shape", None), tuple | tf.TensorShape):
        yield path, value
    elif isinstance(value, Mapping):
        if value and all(isinstance(each, SCALARS) for each in value.values()):
            yield path, np.array(list(value.items()), object)
        else:
            yield from _members(value.items(), f"{path}[{{!r}}]", depth)
    elif isinstance(value, list | tuple):
        if value and all(isinstance(each, SCALARS) for each in value):
            yield path, np.array(value, object)
        else:
            yield from _members(enumerate(value), f"{path}[{{}}]", depth)


def _members(items: Iterable[tuple[Any, Any]], form: str, depth: int) -> Iterator[tuple[str, Any]]:
    for name, value in items:
        if not str(name).startswith("_self_"):
            yield from _arrays(form.format(name), value, depth + 1)


def _of_dataset(path: str, dataset: Any, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Yield the tensors that a dataset and those that it is derived from are made of."""
    if id(dataset) in seen:
        return
    seen.add(id(dataset))
    for place, tensor in enumerate(getattr(dataset, "_tensors", None) or ()):
        if isinstance(tensor, tf.Tensor) and tensor.dtype not in (tf.variant, tf.resource):
            yield f"{path} ({type(dataset).__name__.strip('_')}, component {place})", tensor
    for place, source in enumerate(dataset._inputs()):
        yield from _of_dataset(f"{path}" if not place else f"{path} (input {place})", source, seen)


def _of_generator(path: str, generator: types.GeneratorType[Any, Any, Any], depth: int) -> Iterator[tuple[str, Any]]:
    frame, code = generator.gi_frame, generator.gi_code
    if (
        frame is None or inspect.getgeneratorstate(generator) != inspect.GEN_CREATED
    ):  # its variables are those of some step
        return
    named = {name: frame.f_globals[name] for name in code.co_names if name in frame.f_globals}
    for name, value in {**named, **frame.f_locals}.items():
        yield from _arrays(f"{path} ({name})", value, depth + 1)


def _fingerprint(array: Any, given_path: Callable[[str], str]) -> str:
    shape = tuple(int(length) for length in array.shape)
    digest, dtype = hashlib.sha256(), getattr(array, "dtype", "")
    for block in _blocks(array, shape):
        values = np.asarray(block)
        dtype = dtype or values.dtype
        digest.update(
            _objects(values, given_path) if values.dtype.hasobject else np.ascontiguousarray(values).tobytes()
        )
    return f"{getattr(dtype, 'name', dtype)}{list(shape)} {digest.hexdigest()[:16]}"


def _blocks(array: Any, shape: tuple[int, ...]) -> Iterator[Any]:
    """Yield all rows of a short array, and evenly spaced blocks of rows of a long one."""
    dtype = getattr(array, "dtype", None)  # `size` is TensorFlow's name for the bytes of an element
    item_bytes = getattr(dtype, "itemsize", 0) or getattr(dtype, "size", 0) or 8
    n_bytes = int(np.prod(shape, dtype=np.int64)) * int(item_bytes)
    if not shape or n_bytes <= FULL_BYTES:
        yield array
        return
    rows = max(2, min(shape[0], FULL_BYTES * shape[0] // n_bytes))
    blocks = min(BLOCKS, rows)
    for start in np.linspace(0, shape[0] - rows // blocks, blocks).astype(np.int64):
        part = slice(int(start), int(start) + rows // blocks)
        yield array.iloc[part] if hasattr(array, "iloc") else array[part]


def _objects(values: np.ndarray, given_path: Callable[[str], str]) -> bytes:
    flat = values.ravel()
    if flat.size > MOST_OBJECTS:
        flat = flat[np.linspace(0, flat.size - 1, MOST_OBJECTS).astype(np.int64)]
    return "\n".join(_text(value, given_path) for value in flat).encode(errors="surrogateescape")


def _text(value: Any, given_path: Callable[[str], str]) -> str:
    if isinstance(value, np.ndarray):
        return _fingerprint(value, given_path)
    if isinstance(value, bytes):
        return given_path(value.decode(errors="surrogateescape"))
    text = repr(value)
    return text if " at 0x" not in text else type(value).__qualname__
