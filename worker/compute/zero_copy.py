"""Vectors that NumPy writes and TensorFlow reads in place."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np
import tensorflow as tf

ALIGNMENT = 64  # bytes; the kernels of TensorFlow and XLA require it


def aligned(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """Return an array of zeros whose memory begins at a multiple of `ALIGNMENT`."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def aligned_copy(vector: np.ndarray) -> np.ndarray:
    """Return a copy of a `float32[n]` whose memory begins at a multiple of `ALIGNMENT`."""
    memory = np.empty(vector.nbytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    copy = memory[start : start + vector.nbytes].view(np.float32)
    copy[:] = vector
    return copy


class Input:
    """An argument of a `tf.function` in memory that NumPy and TensorFlow share, so that values are copied once.

    `tf.convert_to_tensor` would copy them as well, into new memory each time, and needs about 80 µs more.

    Values in mapped memory, such as weights of a shard on this host or of several shards, are not copied: a tensor of
    that memory is used instead. TensorFlow does not write to arguments that have other references.

    Attributes:
        array: The memory, which may be written to between calls.
        tensor: A tensor of the same memory.
    """

    def __init__(self, shape: tuple[int, ...], dtype: type = np.float32) -> None:
        """Allocate memory that contains zeros."""
        self.array = aligned(shape, dtype)
        self.tensor = tf.experimental.dlpack.from_dlpack(self.array.__dlpack__())
        self._mapping: mmap.mmap | None = None  # the mapping that contains the tensors below
        self._mapped: dict[int, tf.Tensor] = {}  # by address

    def filled(self, values: np.ndarray) -> tf.Tensor:
        """Return a tensor with values of the same shape, which must not change while the tensor is used."""
        if values.shape != self.array.shape:
            raise ValueError(f"a vector must have the shape {self.array.shape}; received {values.shape}.")
        mapping = getattr(values.base, "obj", None)
        if isinstance(mapping, mmap.mmap):
            address = values.ctypes.data
            if mapping is self._mapping and address in self._mapped:
                return self._mapped[address]
            if address % ALIGNMENT == 0 and values.dtype == self.array.dtype and values.flags.c_contiguous:
                return self._map(mapping, address)
        np.copyto(self.array, values, casting="same_kind")
        return self.tensor

    def _map(self, mapping: mmap.mmap, address: int) -> tf.Tensor:
        if mapping is not self._mapping:  # only one remains mapped: an earlier one may be large
            self._mapping, self._mapped = mapping, {}
        # DLPack rejects read-only arrays; this array of the same memory is not marked as read-only.
        memory = (ctypes.c_char * self.array.nbytes).from_address(address)
        array = np.frombuffer(memoryview(memory), self.array.dtype).reshape(self.array.shape)
        self._mapped[address] = tensor = tf.experimental.dlpack.from_dlpack(array.__dlpack__())
        return tensor
