"""The encoding of columns of numbers for the page: a JSON header followed by little-endian arrays, compressed.

The layout is `uint32 bytes of the header · header (JSON, padded with spaces to 8 bytes) · arrays`, deflated with zlib.
`page/decode.js` reads it. A column that is marked as a difference holds the first value and then each change, which
compresses far better for times and versions.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
KINDS = {"<u1": "u8", "<u2": "u16", "<u4": "u32", "<i4": "i32", "<f4": "f32", "<f8": "f64"}
ALIGNMENT = 8
FASTEST, SMALLEST = 1, 9  # levels of compression


def smallest_unsigned(values: Array) -> Array:
    """Return the same whole numbers in the narrowest of uint8, uint16 and uint32 that holds them all.

    Raises:
        ValueError: A value is negative or needs more than 32 bits.
    """
    if len(values) and (int(values.min()) < 0 or int(values.max()) >= 1 << 32):
        raise ValueError(f"a column must hold numbers from 0 to 2³² − 1; received {values.min()} to {values.max()}")
    top = int(values.max()) if len(values) else 0
    return values.astype("<u1" if top < 1 << 8 else "<u2" if top < 1 << 16 else "<u4")


def differences(values: Array) -> Array:
    """Return the first value and every change after it; `numpy.cumsum` restores the values.

    They are int32, or float64 where one of them is too large for that, as after a pause of an hour in microseconds.
    """
    changes = np.diff(np.asarray(values, np.int64), prepend=np.int64(0))
    narrow = not len(changes) or int(np.abs(changes).max()) < 1 << 31
    return changes.astype("<i4" if narrow else "<f8")


def pack(header: Mapping[str, Any], tables: Mapping[str, Mapping[str, Array]], level: int = SMALLEST) -> bytes:
    """Return a header and tables of columns as one compressed block.

    Args:
        header: A dict that JSON can represent; `tables` is added to it.
        tables: The columns by table and name. A name that ends in `_d` holds differences.
        level: The level of compression, from 1, which is the fastest, to 9.
    """
    described: dict[str, list[dict[str, Any]]] = {}
    arrays, offset = [], 0
    for table, columns in tables.items():
        described[table] = []
        for name, values in columns.items():
            data = np.ascontiguousarray(values).tobytes()
            described[table].append(
                {
                    "name": name.removesuffix("_d"),
                    "kind": KINDS[np.asarray(values).dtype.newbyteorder("<").str.replace("|", "<")],
                    "length": len(values),
                    "offset": offset,
                    "differences": name.endswith("_d"),
                }
            )
            padded = data + b"\0" * (-len(data) % ALIGNMENT)
            arrays.append(padded)
            offset += len(padded)
    text = json.dumps({**header, "tables": described}, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-(len(text) + 4) % ALIGNMENT)
    return zlib.compress(struct.pack("<I", len(text)) + text + b"".join(arrays), level)
