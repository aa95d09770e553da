"""Checks of the values of single settings, and what an interval between checkpoints means."""

from __future__ import annotations

import os

from downpour.protos.codecs.codec import CODECS, codec_named
from downpour.protos.errors import InvalidRequest
from downpour.protos.sentences.choices import did_you_mean
from downpour.protos.shared_memory.doorbell_socket import FOLDER_LIMIT_BYTES
from downpour.protos.transports import transport_names


def known_codec(value: str) -> str:
    """Return the name of a codec, or raise ValueError."""
    try:
        codec_named(value)
    except InvalidRequest as error:
        family = value.partition(":")[0]
        near = did_you_mean(family, CODECS) if family not in CODECS else ""
        raise ValueError(str(error).removeprefix("codec ").partition("; received")[0] + near) from None
    return value


def known_transport(value: str) -> str:
    """Return the name of a transport in the registry as it is now, or raise ValueError."""
    names = transport_names()
    if value not in names:
        raise ValueError(f"must be one of {', '.join(names)}{did_you_mean(value, names)}")
    return value


def short_enough(value: str | None) -> str | None:
    """Return a folder whose path leaves room for the name of a Unix socket, or raise ValueError."""
    if value is not None and (not value or len(os.fsencode(os.path.abspath(value))) > FOLDER_LIMIT_BYTES):
        raise ValueError(
            f"must be a folder whose path has at most {FOLDER_LIMIT_BYTES} bytes, as the path of a socket is short"
        )
    return value


def known_interval(value: str) -> str:
    """Return a valid checkpoint interval, or raise ValueError."""
    interval_of(value)
    return value


def interval_of(value: str) -> tuple[float, int]:
    """Return the interval between two checkpoints in seconds and in updates; the one that is not given is 0.

    Raises:
        ValueError: The value is neither a time, nor a number of updates, nor `off`.
    """
    if value == "off":
        return 0.0, 0
    number = value.removesuffix("s")
    try:
        seconds, updates = (float(number), 0) if value.endswith("s") else (0.0, int(number))
    except ValueError:
        seconds, updates = 0.0, 0
    if not 0 < seconds + updates < 1e9:
        raise ValueError("must be a time such as 2s, a number of updates such as 500, or off")
    return seconds, updates
