"""JSON for files and programs of any language.

Python writes NaN and Infinity, which are not JSON: JavaScript, jq and most other parsers refuse the whole text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def json_text(value: Any, indent: int | None = None) -> str:
    """Return the text of a value in JSON, in which numbers that are not finite are null.

    Args:
        value: Dicts, lists, texts, numbers, booleans and None, nested in any way.
        indent: The number of spaces of each level; None for one line.
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value
