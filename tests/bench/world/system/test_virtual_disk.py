"""A simulated disk keeps what was flushed through a power failure, and of the rest whole blocks, old or new."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downpour.bench.world.system.disk import BLOCK_BYTES, Inode, VirtualDisk
from downpour.bench.world.system.scheduler import World

SEEDS = st.integers(0, 1000)


def disk_with(seed: int, path: str, content: bytes) -> VirtualDisk:
    """Return a disk with a file whose content and name are flushed."""
    disk = VirtualDisk(World(seed))
    disk.set_name(path, Inode(bytearray(content)))
    disk.flush_file(disk.inode(path))
    disk.flush_folder("/")
    return disk


@given(SEEDS, st.binary(max_size=3 * BLOCK_BYTES))
def test_flushed_files_survive_a_power_failure(seed: int, content: bytes) -> None:
    disk = disk_with(seed, "/file", content)
    disk.lose_power()
    assert bytes(disk.inode("/file").content) == content


@given(SEEDS)
def test_blocks_that_were_not_flushed_are_old_or_new(seed: int) -> None:
    blocks = 4
    disk = disk_with(seed, "/file", b"o" * blocks * BLOCK_BYTES)
    disk.inode("/file").content[:] = b"n" * blocks * BLOCK_BYTES
    disk.lose_power()
    after = bytes(disk.inode("/file").content)
    assert len(after) == blocks * BLOCK_BYTES
    for at in range(0, len(after), BLOCK_BYTES):
        assert after[at : at + BLOCK_BYTES] in (b"o" * BLOCK_BYTES, b"n" * BLOCK_BYTES)


def test_a_name_that_was_not_flushed_is_sometimes_lost_and_sometimes_kept() -> None:
    found = set()
    for seed in range(40):
        disk = VirtualDisk(World(seed))
        disk.set_name("/file", Inode())
        disk.lose_power()
        found.add("/file" in disk.entries("/"))
    assert found == {True, False}


def test_a_disk_that_is_full_or_read_only_refuses_to_be_written() -> None:
    disk = disk_with(1, "/file", b"")
    disk.full = True
    with pytest.raises(OSError, match="No space left"):
        disk.begin_write()
    disk.full, disk.read_only = False, True
    with pytest.raises(OSError, match="Read-only"):
        disk.begin_write()
    with pytest.raises(FileNotFoundError):
        disk.inode("/other")
