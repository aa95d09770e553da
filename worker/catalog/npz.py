"""Reads the arrays of a dataset from `.npz` or IDX files, without unpickling, and checks each of them."""

from __future__ import annotations

import gzip
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from downpour.protos.logs import reason_of

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

Array = np.ndarray[Any, np.dtype[Any]]


class DatasetError(ValueError):
    """A dataset cannot be found, is damaged, or does not contain what training needs."""


def read_npz(path: Path) -> dict[str, Array]:
    """Read the four arrays of a dataset from an `.npz` file.

    Raises:
        DatasetError: The file does not exist, or is not a complete `.npz`.
        DatasetError: One of the arrays is missing or unreadable.
    """
    if not path.is_file():
        raise DatasetError(f"a dataset must be a file that exists. Received: {path}, which does not exist.")
    try:
        complete = zipfile.is_zipfile(path)
    except OSError as error:
        raise DatasetError(f"a dataset must be a readable file. Received: {reason_of(error)}.") from error
    if not complete:
        raise DatasetError(
            f"a dataset must be a complete .npz file (a zip of arrays). Received: {path}, "
            f"{path.stat().st_size} bytes that are not one. If it is truncated, copy it again; "
            "if it has another format, save it with "
            f"np.savez(path, {', '.join(f'{name}=...' for name in ARRAYS)})."
        )
    # For a damaged file, zipfile, zlib and NumPy's header parser raise errors of nearly any class.
    try:
        with path.open("rb") as content, np.load(content, allow_pickle=False) as file:
            found = sorted(file.files)
            arrays = {name: file[name] for name in ARRAYS if name in found}
    except Exception as error:
        raise DatasetError(
            f"the arrays of a dataset must be readable and numeric. Received from {path}: "
            f"{type(error).__name__}: {error}. Copy the file again, or save it again from numeric arrays."
        ) from error
    if others := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
        raise DatasetError(
            f"the entries of a dataset must be arrays. Received: {', '.join(others)} in {path}, which numpy.save has "
            "not written. Save the file again with numpy.savez."
        )
    if missing := [name for name in ARRAYS if name not in arrays]:
        raise DatasetError(
            f"a dataset must contain the arrays {', '.join(ARRAYS)}. Received: {path} with "
            f"{', '.join(found) or 'none'}. Save it again with {', '.join(missing)}."
        )
    return arrays


def read_idx_folder(folder: Path) -> dict[str, Array] | None:
    """Read the four gzipped IDX files in which MNIST and similar datasets are distributed.

    Returns:
        The arrays; None if the folder does not have all four files.

    Raises:
        DatasetError: One of the files is damaged.
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
                "Delete it, or reinstall its package, and try again."
            ) from error
    return arrays


def parse_idx(data: bytes) -> Array:
    """Parse IDX data of unsigned bytes: two zero bytes, type 8, rank, big-endian sizes, then the content.

    Raises:
        ValueError: The type is not that of unsigned bytes.
        ValueError: The length is not the product of the sizes.
    """
    rank = data[3] if len(data) > 3 else 0
    body = 4 + 4 * rank
    if data[:3] != b"\0\0\x08" or len(data) < body:
        raise ValueError(f"IDX of unsigned bytes must start with 00 00 08. Received: {data[:4].hex(' ')}")
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", rank, 4))
    if len(data) - body != math.prod(shape):
        raise ValueError(f"IDX of shape {shape} must have that many bytes. Received: {len(data) - body}")
    return np.frombuffer(data, np.uint8, offset=body).reshape(shape)


def samples_of(name: str, key: str, array: Array) -> Array:
    """Return the samples of a dataset: pixels (uint8) unchanged, features as float32.

    Raises:
        DatasetError: The array is empty, or has fewer than two dimensions.
        DatasetError: The dtype is neither uint8 nor floating point.
        DatasetError: A value is not finite in float32.
    """
    if array.ndim < 2 or 0 in array.shape:
        raise DatasetError(
            f"{name}: {key} must have the shape [samples, ...], with no size of 0. Received: {array.shape}. "
            "Save one row for each sample."
        )
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        raise DatasetError(
            f"{name}: {key} must be uint8 (pixels, divided by 255 in training) or floating point "
            f"(features, used unchanged). Received: {array.dtype}. Convert it to one of these."
        )
    with np.errstate(over="ignore"):
        features = array.astype(np.float32, copy=False)
    # A NaN anywhere makes both NaN; an infinity is one of them.
    if not np.isfinite([features.min(), features.max()]).all():
        raise DatasetError(
            f"{name}: {key} must be finite in float32. Received: NaN, infinite or larger values. "
            "Remove or replace them, and save the file again."
        )
    return features


def labels_of(name: str, key: str, array: Array) -> Array:
    """Return the targets of a dataset, `[n]`: class numbers from 0 as integers, or numbers as float32.

    A column `[n, 1]` is returned as `[n]`.

    Raises:
        DatasetError: The shape is neither `[n]` nor `[n, 1]`, or n is 0.
        DatasetError: The values are neither integers nor finite numbers.
        DatasetError: A class number is negative.
    """
    labels = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if labels.ndim != 1 or labels.size == 0:
        raise DatasetError(
            f"{name}: {key} must have the shape [samples], with at least one. Received: {array.shape}. "
            "Save class numbers; np.argmax(y, axis=1) converts one-hot rows to them."
        )
    if labels.dtype.kind == "f" and np.isfinite(labels).all():
        return labels.astype(np.float32)
    if labels.dtype.kind not in "iu":
        raise DatasetError(
            f"{name}: {key} must be integers, the class of each sample, or finite numbers. "
            f"Received: {_kind_of(labels)}. "
            "Convert class numbers with astype(np.int64)."
        )
    if int(labels.min()) < 0:
        raise DatasetError(
            f"{name}: {key} must be class numbers from 0. Received: {labels.min()}. Renumber the classes."
        )
    return labels


def _kind_of(labels: np.ndarray) -> str:
    """Return what an array contains, without NumPy's codes for texts."""
    if labels.dtype.kind in "US":
        return "texts"
    return f"{labels.dtype}, not all finite" if labels.dtype.kind == "f" else str(labels.dtype)
