"""Vectors that NumPy writes and TensorFlow reads in place."""

from __future__ import annotations

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

    Attributes:
        array: The memory, to be written to between calls.
        tensor: The same memory.
    """

    def __init__(self, shape: tuple[int, ...], dtype: type = np.float32) -> None:
        """Zeros."""
        self.array = aligned(shape, dtype)
        self.tensor = tf.experimental.dlpack.from_dlpack(self.array.__dlpack__())

    def filled(self, values: np.ndarray) -> tf.Tensor:
        """The tensor, with values of the same shape."""
        if values.shape != self.array.shape:
            raise ValueError(f"a vector must have the shape {self.array.shape}; received {values.shape}.")
        np.copyto(self.array, values, casting="same_kind")
        return self.tensor
