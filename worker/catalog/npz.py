"""The arrays of a dataset: read from `.npz` or IDX, unpickling nothing, and checked one by one."""

from __future__ import annotations

import gzip
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

Array = np.ndarray[Any, np.dtype[Any]]


class DatasetError(ValueError):
    """A dataset cannot be found, is damaged, or does not hold what training needs."""


def read_npz(path: Path) -> dict[str, Array]:
    """Reads the four arrays of a dataset from an `.npz`.

    Raises:
        DatasetError: No such file, not a complete `.npz`, or one of the arrays is missing or unreadable.
    """
    if not path.is_file():
        raise DatasetError(f"a dataset must be a file that exists. Received: {path}, where there is none.")
    try:
        complete = zipfile.is_zipfile(path)
    except OSError as error:
        raise DatasetError(f"a dataset must be a readable file. Received: {error}.") from error
    if not complete:
        raise DatasetError(
            f"a dataset must be a complete .npz file (a zip of arrays). Received: {path}, "
            f"{path.stat().st_size} bytes that are not one. If it was cut short, copy it again; "
            "if it is of another kind, save it anew with "
            f"np.savez(path, {', '.join(f'{name}=...' for name in ARRAYS)})."
        )
    # A damaged zip makes zipfile, zlib and NumPy's header parser raise nearly anything.
    try:
        with path.open("rb") as content, np.load(content, allow_pickle=False) as file:
            found = sorted(file.files)
            arrays = {name: file[name] for name in ARRAYS if name in found}
    except Exception as error:
        raise DatasetError(
            f"the arrays of a dataset must be readable, and none of Python objects. Received from {path}: "
            f"{type(error).__name__}: {error}. Copy the file again, or save it anew from numeric arrays."
        ) from error
    if missing := [name for name in ARRAYS if name not in arrays]:
        raise DatasetError(
            f"a dataset must hold the arrays {', '.join(ARRAYS)}. Received: {path} with "
            f"{', '.join(found) or 'none'}. Save it anew with {', '.join(missing)}."
        )
    return arrays


def read_idx_folder(folder: Path) -> dict[str, Array] | None:
    """Reads the four gzipped IDX files in which MNIST-like sets are distributed; None where they are not.

    Raises:
        DatasetError: The files are there, and damaged.
    """
    paths = [folder / f"{file}.gz" for file in IDX_FILES]
    if not all(path.is_file() for path in paths):
        return None
    arrays = {}
    for name, path in zip(ARRAYS, paths, strict=True):
        try:
            arrays[name] = parse_idx(gzip.decompress(path.read_bytes()))
        except Exception as error:
            raise DatasetError(
                f"{path} must be a complete gzipped IDX file. Received: {type(error).__name__}: {error}. "
                "Delete it (or install the package that it is from again), and run this again."
            ) from error
    return arrays


def parse_idx(data: bytes) -> Array:
    """Reads IDX of unsigned bytes: two zero bytes, type 8, rank, big-endian sizes, then the content.

    Raises:
        ValueError: Another type, or a length that is not what the sizes say.
    """
    rank = data[3] if len(data) > 3 else 0
    body = 4 + 4 * rank
    if data[:3] != b"\0\0\x08" or len(data) < body:
        raise ValueError(f"IDX of unsigned bytes must begin with 00 00 08. Received: {data[:4].hex(' ')}")
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", rank, 4))
    if len(data) - body != math.prod(shape):
        raise ValueError(f"IDX of shape {shape} must have that many bytes. Received: {len(data) - body}")
    return np.frombuffer(data, np.uint8, offset=body).reshape(shape)


def samples_of(name: str, key: str, array: Array) -> Array:
    """The samples of a dataset: pixels (uint8) as they are, features as float32.

    Raises:
        DatasetError: Nothing in them, another dtype, or values that are not finite.
    """
    if array.ndim < 2 or 0 in array.shape:
        raise DatasetError(
            f"{name}: {key} must have the shape [samples, ...], with nothing empty. Received: {array.shape}. "
            "Save one row for each sample."
        )
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        raise DatasetError(
            f"{name}: {key} must be uint8 (pixels, divided by 255 in training) or floating point "
            f"(features, taken as they are). Received: {array.dtype}. Save it as one of these."
        )
    with np.errstate(over="ignore"):
        features = array.astype(np.float32, copy=False)
    # A NaN anywhere makes both NaN; an infinity is one of them.
    if not np.isfinite([features.min(), features.max()]).all():
        raise DatasetError(
            f"{name}: {key} must be finite in float32. Received: NaN, infinite or larger values. "
            "Remove or replace them, and save it anew."
        )
    return features


def labels_of(name: str, key: str, array: Array) -> Array:
    """The labels of a dataset: integers [n], class numbers from 0, or floating point, taken as float32.

    A column [n, 1] is taken as [n].

    Raises:
        DatasetError: Another shape, neither integers nor finite numbers, or a class below 0.
    """
    labels = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if labels.ndim != 1 or labels.size == 0:
        raise DatasetError(
            f"{name}: {key} must have the shape [samples], with at least one. Received: {array.shape}. "
            "Save class numbers; np.argmax(y, axis=1) makes them from one-hot rows."
        )
    if labels.dtype.kind == "f" and np.isfinite(labels).all():
        return labels.astype(np.float32)
    if labels.dtype.kind not in "iu":
        raise DatasetError(
            f"{name}: {key} must be integers, the class of each sample, or finite numbers to be met. "
            f"Received: {labels.dtype}{', not all finite' if labels.dtype.kind == 'f' else ''}. "
            "Save it with astype(np.int64)."
        )
    if int(labels.min()) < 0:
        raise DatasetError(f"{name}: {key} must be class numbers from 0. Received: {labels.min()}. Number them anew.")
    return labels
