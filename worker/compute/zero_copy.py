"""Vectors that NumPy writes and TensorFlow reads in place."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np
import tensorflow as tf

ALIGNMENT = 64  # bytes: what TensorFlow's kernels and XLA's take for granted


def aligned(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """An array of zeros whose memory is aligned."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


class Input:
    """An argument of a `tf.function`: what is filled in is what the tensor holds, at one copy.

    `tf.convert_to_tensor` would copy too, into new memory each time, and takes about 80 µs more.

    What lies in mapped memory, as weights from a shard on this host and those that were put together do, is not copied
    at all: it has a tensor of its own. TensorFlow does not write to arguments that others hold.

    Attributes:
        array: The memory, to be written to between calls.
        tensor: The same memory.
    """

    def __init__(self, shape: tuple[int, ...], dtype: type = np.float32) -> None:
        """Allocate zeros."""
        self.array = aligned(shape, dtype)
        self.tensor = tf.experimental.dlpack.from_dlpack(self.array.__dlpack__())
        self._mapping: mmap.mmap | None = None  # that the tensors below lie in
        self._mapped: dict[int, tf.Tensor] = {}  # by address

    def filled(self, values: np.ndarray) -> tf.Tensor:
        """A tensor with values of the same shape; they must not change while it is used."""
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
        if mapping is not self._mapping:  # only one is kept mapped: that of a shard's earlier life may be large
            self._mapping, self._mapped = mapping, {}
        # DLPack takes no array that can only be read; this one does not know that it is.
        memory = (ctypes.c_char * self.array.nbytes).from_address(address)
        array = np.frombuffer(memoryview(memory), self.array.dtype).reshape(self.array.shape)
        self._mapped[address] = tensor = tf.experimental.dlpack.from_dlpack(array.__dlpack__())
        return tensor
