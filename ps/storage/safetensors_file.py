"""Writes flat vectors as a safetensors file, without a copy of them in memory; the library reads it.

The library's own writer gathers all bytes first, and makes a temporary file whose name it does not tell, which a
process that is killed leaves behind.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ALIGNED = 8  # bytes to which the format pads its header


def write_tensors(path: Path, vectors: Mapping[str, NDArray[np.float32]], metadata: Mapping[str, str]) -> None:
    """Writes the vectors, `float32[n]` each, and texts beside them.

    Raises:
        OSError: The disk does not take them.
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
