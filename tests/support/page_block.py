"""A decoder of the dashboard's block, equal to that of `page/decode.js`."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

import numpy as np

KINDS = {"u8": "<u1", "u16": "<u2", "u32": "<u4", "i32": "<i4", "f32": "<f4", "f64": "<f8"}


def unpack(block: bytes) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """Return the header and the tables of a block."""
    content = zlib.decompress(block)
    (length,) = struct.unpack_from("<I", content)
    header = json.loads(content[4 : 4 + length])
    tables: dict[str, dict[str, np.ndarray]] = {}
    for table, columns in header["tables"].items():
        tables[table] = {}
        for column in columns:
            values = np.frombuffer(content, KINDS[column["kind"]], column["length"], 4 + length + column["offset"])
            tables[table][column["name"]] = np.cumsum(values, dtype=np.int64) if column["differences"] else values
    return header, tables
