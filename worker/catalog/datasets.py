"""The registry of datasets, and any `.npz` file with the same four arrays.

A new dataset is one row of `DATASETS`. TensorFlow is not imported.
"""

from __future__ import annotations

import fcntl
import hashlib
import math
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from downpour.protos.logs import reason_of
from downpour.protos.sentences.sentence import counted
from downpour.worker.catalog.npz import ARRAYS, Array, DatasetError, labels_of, read_idx_folder, read_npz, samples_of
from downpour.worker.catalog.synthetic import BUILT_IN

__all__ = ["DATASETS", "Dataset", "DatasetError", "Split", "checksum_of", "load", "split"]

MNIST = Path(__file__).parents[1] / "data" / "mnist.npz"
MNIST_CHECKSUM = "e5ea4841dd6fde90b155843179ce5756a4864227194eec7fb09d7cfc4cf702a5"
FASHION_MNIST_PACKAGE = Path("/usr/share/datasets/fashion-mnist")
FASHION_MNIST_CHECKSUM = "8294d2ca571ee42977a0b2dbf2f2f22ac6655a869e4497e2cd010da5acf40c92"
DOWNLOAD_IDLE_S = 30.0  # a download that receives nothing for this long fails


@dataclass(frozen=True, eq=False)
class Dataset:
    """The samples and targets of a training set and a test set; all arrays are read-only.

    Attributes:
        name: The name in the registry, or the path of the file.
        x_train: `uint8[n, ...]` pixels or `float32[n, ...]` features.
        y_train: Integers `[n]`, the class of each sample, from 0; or `float32[n]`, numeric targets.
        x_test: The samples of the same shape and dtype as those of `x_train`.
        y_test: Targets of the same kind as `y_train`.
        checksum: SHA-256 (hex) of the four arrays, as `checksum_of` computes it.
        given_scale: The factor on the samples that a user has chosen; None for the one that follows from the values.
    """

    name: str
    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array
    checksum: str
    given_scale: float | None = None

    @cached_property
    def scale(self) -> float:
        """The factor on the samples before they enter a model.

        By default it is 1/255 for pixels, which are `uint8` with a value above 1, and 1 for flags and features.
        """
        if self.given_scale is not None:
            return self.given_scale
        return 1 / 255 if self.x_train.dtype == np.uint8 and self.x_train.max() > 1 else 1.0

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one sample, without the batch axis."""
        return tuple(self.x_train.shape[1:])

    @property
    def classes(self) -> int:
        """Number of classes, one more than the largest label; 1 if the targets are numeric."""
        if self.y_train.dtype.kind == "f":
            return 1
        return 1 + int(max(self.y_train.max(), self.y_test.max()))


@dataclass(frozen=True, eq=False)
class Split:
    """Views of a dataset: the samples for training, those that are held out for validation, and the test set."""

    x_train: Array
    y_train: Array
    x_validation: Array
    y_validation: Array
    x_test: Array
    y_test: Array


def load(spec: str) -> Dataset:
    """Return a dataset of the registry, or of an `.npz` file.

    Args:
        spec: A name in `DATASETS`, or the path of an `.npz` with `x_train, y_train, x_test, y_test`.

    Raises:
        DatasetError: There is no dataset or file of this name.
        DatasetError: The file is damaged, or its arrays are not consistent with each other.
    """
    if spec in DATASETS:
        return DATASETS[spec](spec)
    path = Path(spec).expanduser()
    if path.suffix != ".npz" and not path.exists():
        raise DatasetError(
            f"a dataset must be {', '.join(DATASETS)}, or the path of an .npz file that exists. Received: {spec!r}."
        )
    return dataset_of(spec, read_npz(path))


def split(dataset: Dataset, validation_split: float) -> Split:
    """Hold out the last samples of the training set, exactly as `validation_split` of Keras's `fit` does.

    Args:
        dataset: The dataset to divide; nothing is copied.
        validation_split: The fraction to hold out, in [0, 1): floor(n * (1 - fraction)) samples are for training.

    Raises:
        DatasetError: The fraction is out of range.
        DatasetError: The fraction leaves no sample to train on, or none to validate on.
    """
    if not 0 <= validation_split < 1:
        raise DatasetError(f"validation_split must be at least 0 and below 1. Received: {validation_split}.")
    samples = len(dataset.x_train)
    cut = math.floor(samples * (1.0 - validation_split))
    if cut == 0 or (validation_split > 0 and cut == samples):
        raise DatasetError(
            "validation_split must leave samples to train and to validate on. Received: "
            f"{validation_split} of {counted(samples, 'sample')}, which trains on {cut}. "
            "Choose another fraction, or 0 for no validation."
        )
    x, y = dataset.x_train, dataset.y_train
    return Split(x[:cut], y[:cut], x[cut:], y[cut:], dataset.x_test, dataset.y_test)


def checksum_of(arrays: Mapping[str, Array]) -> str:
    """Return the SHA-256 (hex) of name, dtype, shape and bytes of the four arrays, in the order of `ARRAYS`."""
    digest = hashlib.sha256()
    for name in ARRAYS:
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()


def dataset_of(name: str, arrays: Mapping[str, Array], checksum: str | None = None, source: str = "") -> Dataset:
    """Return the dataset of four arrays, once they have been checked.

    Args:
        name: The name of the dataset.
        arrays: The four arrays by the names in `ARRAYS`.
        checksum: The value that `checksum_of` must have; None if any is accepted.
        source: The origin of the arrays, and the advice if the checksum differs, for a message.

    Raises:
        DatasetError: An array has a shape, a dtype or values that training does not accept.
        DatasetError: The arrays are not consistent with each other, or have another checksum.
    """
    found = {key: samples_of(name, key, arrays[key]) for key in ("x_train", "x_test")}
    found |= {key: labels_of(name, key, arrays[key]) for key in ("y_train", "y_test")}
    for part in ("train", "test"):
        samples, labels = len(found[f"x_{part}"]), len(found[f"y_{part}"])
        if samples != labels:
            raise DatasetError(
                f"{name}: x_{part} and y_{part} must have one label for each sample. "
                f"Received: {counted(samples, 'sample')} and {counted(labels, 'label')}. Save them together."
            )
    train, test = found["x_train"], found["x_test"]
    if (train.shape[1:], train.dtype) != (test.shape[1:], test.dtype):
        raise DatasetError(
            f"{name}: x_train and x_test must have samples of one shape and dtype. Received: "
            f"{train.shape[1:]} {train.dtype} and {test.shape[1:]} {test.dtype}. "
            "Prepare both in the same way."
        )
    received = checksum_of(found)
    if checksum is not None and received != checksum:
        raise DatasetError(f"{name} must have the SHA-256 {checksum}. Received: {received} from {source}.")
    for array in found.values():
        array.setflags(write=False)
    return Dataset(name, train, found["y_train"], test, found["y_test"], received)


def _mnist(name: str) -> Dataset:
    """Return MNIST, which is included in this package."""
    return dataset_of(name, read_npz(MNIST), MNIST_CHECKSUM, f"{MNIST}; install downpour again")


def _fashion_mnist(name: str) -> Dataset:
    """Return Fashion-MNIST from Debian's package, otherwise from Keras's cache, otherwise from Keras's download."""
    cache = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "datasets" / "fashion-mnist"
    with _one_process():
        for folder in (FASHION_MNIST_PACKAGE, cache):
            if arrays := read_idx_folder(folder):
                return dataset_of(name, arrays, FASHION_MNIST_CHECKSUM, f"{folder}; delete it and run this again")
        try:
            arrays = _keras_fashion_mnist()
        # Keras raises a bare Exception if it cannot reach its server.
        except Exception as error:
            raise DatasetError(
                f"{name} must be in {FASHION_MNIST_PACKAGE} (apt install dataset-fashion-mnist), "
                f"or in Keras's cache {cache}, or Keras must be able to download it. Received: "
                f"neither folder has its four files, and the download failed: {reason_of(error).removesuffix('.')}."
            ) from error
    return dataset_of(name, arrays, FASHION_MNIST_CHECKSUM, f"Keras; delete {cache} and run this again")


def _keras_fashion_mnist() -> dict[str, Array]:
    from keras.datasets import fashion_mnist

    default_s = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_IDLE_S)
    try:
        (x_train, y_train), (x_test, y_test) = fashion_mnist.load_data()
    finally:
        socket.setdefaulttimeout(default_s)
    return dict(zip(ARRAYS, (x_train, y_train, x_test, y_test), strict=True))


@contextmanager
def _one_process() -> Iterator[None]:
    """Hold a machine-wide lock, because Keras downloads in place and workers start at the same moment."""
    folder = os.open(tempfile.gettempdir(), os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


DATASETS: Mapping[str, Callable[[str], Dataset]] = {
    "mnist": _mnist,
    "fashion_mnist": _fashion_mnist,
    **dict.fromkeys(BUILT_IN, lambda name: dataset_of(name, BUILT_IN[name]())),
}
