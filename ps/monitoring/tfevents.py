"""Event files in the format of TensorBoard: records with checksums, one protobuf message each. No TensorFlow."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from downpour.protos import events_pb2 as events
from downpour.protos.system import disk

FLOATS, TEXTS = 1, 7  # DT_FLOAT and DT_STRING of TensorFlow


def _table() -> list[int]:
    """Return the table of CRC-32C (Castagnoli) for one byte at a time."""
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table


_CRC = _table()


def masked_crc(data: bytes) -> int:
    """Return the masked CRC-32C of the data, as record files of TensorFlow contain it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def scalar(tag: str, value: float) -> events.Value:
    """Return a scalar summary value in TensorBoard's format."""
    return events.Value(tag=tag, simple_value=value)


def text(tag: str, content: str) -> events.Value:
    """Return a text value, in Markdown."""
    tensor = events.Tensor(dtype=TEXTS, string_val=[content.encode()], tensor_shape=events.Shape())
    plugin = events.Metadata(plugin_data=events.Plugin(plugin_name="text"))
    return events.Value(tag=tag, tensor=tensor, metadata=plugin)


def settings(values: Mapping[str, object], name: str, now: float) -> events.Value:
    """Return settings as the hyperparameters of a run, which TensorBoard's page HPARAMS compares.

    Args:
        values: Numbers, texts and truth values by name.
        name: The name of the run.
        now: The time in seconds since 1970.
    """
    start = events.SessionStart(group_name=name, start_time_secs=now)
    for key, value in values.items():
        if isinstance(value, bool):
            setting = events.Setting(bool_value=value)
        elif isinstance(value, int | float):
            setting = events.Setting(number_value=value)
        else:
            setting = events.Setting(string_value=str(value))
        start.hparams[key].CopyFrom(setting)
    content = events.HParams(session_start_info=start).SerializeToString()
    plugin = events.Metadata(plugin_data=events.Plugin(plugin_name="hparams", content=content))
    nothing = events.Tensor(dtype=FLOATS, tensor_shape=events.Shape(dim=[events.Dimension(size=0)]))
    return events.Value(tag="_hparams_/session_start_info", tensor=nothing, metadata=plugin)


def histogram(tag: str, counts: Mapping[int, int]) -> events.Value:
    """Return a histogram of integers from their counts."""
    values = sorted(counts)
    return events.Value(
        tag=tag,
        histo=events.Histogram(
            min=values[0],
            max=values[-1],
            num=sum(counts.values()),
            sum=sum(value * counts[value] for value in values),
            sum_squares=sum(value * value * counts[value] for value in values),
            # From half below the first to half above the last, each number in the middle of a bucket of its own.
            bucket_limit=[limit + 0.5 for limit in range(values[0] - 1, values[-1] + 1)],
            bucket=[0.0, *(float(counts.get(value, 0)) for value in range(values[0], values[-1] + 1))],
        ),
    )


class EventFile:
    """One event file, which is valid after every `write`."""

    def __init__(self, folder: Path, now: float) -> None:
        """Create the file under a unique name.

        Args:
            folder: The folder of the file; created if it does not exist.
            now: The time in seconds since 1970.

        Raises:
            OSError: The disk is full or fails.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"events.out.tfevents.{int(now)}.{socket.gethostname()}.{os.getpid()}"
        self._file = disk.open_file(path)
        self._end = 0
        try:
            self._file.truncate(0)
            self._append(events.Event(wall_time=now, file_version="brain.Event:2"))
        except OSError:
            self.close()
            raise

    def write(self, now: float, step: int, values: Iterable[events.Value]) -> None:
        """Append the values of one step.

        Raises:
            OSError: The disk is full or fails. The file is unchanged.
        """
        self._append(events.Event(wall_time=now, step=step, summary=events.Summary(value=values)))

    def close(self) -> None:
        """Close the file, to which nothing may be written afterwards."""
        self._file.close()

    def _append(self, event: events.Event) -> None:
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        sums = (struct.pack("<I", masked_crc(part)) for part in (length, data))
        record = b"".join((length, next(sums), data, next(sums)))
        try:
            self._file.write_at(record, self._end)
        except OSError:
            with suppress(OSError):
                self._file.truncate(self._end)
            raise
        self._end += len(record)
