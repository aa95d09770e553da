"""Writes flat vectors as a safetensors file without copying them in memory.

The writer of the safetensors library first copies all bytes, and uses a temporary file that a killed process leaves
behind. Files are read with the library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ALIGNED = 8  # bytes to which the format pads its header


def write_tensors(path: Path, vectors: Mapping[str, NDArray[np.float32]], metadata: Mapping[str, str]) -> None:
    """Write vectors to a file.

    Args:
        path: The path of the file.
        vectors: The vectors by name, `float32[n]` each.
        metadata: The texts of the file's metadata by name.

    Raises:
        OSError: The disk is full, read-only or broken.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    begin = 0
    for name, vector in vectors.items():
        header[name] = {"dtype": "F32", "shape": [len(vector)], "data_offsets": [begin, begin + vector.nbytes]}
        begin += vector.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % ALIGNED)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for vector in vectors.values():
            file.write(np.ascontiguousarray(vector, "<f4").data.cast("B"))
