"""Descriptors in reserve: a file is written although the process can open no other."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from downpour.protos.system import descriptors
from downpour.ps.storage.atomic_file import atomic_write

SPARE = 24


@pytest.fixture
def reserve(monkeypatch: pytest.MonkeyPatch) -> Iterator[descriptors.Reserve]:
    """A reserve of this process, which can open `SPARE` descriptors more."""
    own = descriptors.Reserve()
    monkeypatch.setattr(descriptors, "reserve", own)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + SPARE, before[1]))
    try:
        yield own
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        own.hold(0)
        with own.released():
            pass


def use_up() -> list[int]:
    found = []
    try:
        while True:
            found.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return found


@pytest.mark.parametrize("size", [0, 4])
def test_a_file_is_written_with_the_descriptors_in_reserve(
    tmp_path: Path, reserve: descriptors.Reserve, size: int
) -> None:
    reserve.hold(size)
    used = use_up()
    try:
        for content in ("first", "second"):  # the reserve is held again after the first
            if not size:
                with pytest.raises(OSError, match="Too many open files"), atomic_write(tmp_path / "file") as place:
                    place.write_text(content)
                continue
            with atomic_write(tmp_path / "file", durable=True) as place:
                place.write_text(content)
            with pytest.raises(OSError, match="Too many open files"):
                os.open(os.devnull, os.O_RDONLY)
    finally:
        for each in used:
            os.close(each)
    if size:
        assert (tmp_path / "file").read_text() == "second"


def test_a_block_within_another_keeps_the_descriptors_released(reserve: descriptors.Reserve) -> None:
    reserve.hold(4)
    used = use_up()
    try:
        with reserve.released():
            with reserve.released():
                pass
            os.close(os.open(os.devnull, os.O_RDONLY))
    finally:
        for each in used:
            os.close(each)
