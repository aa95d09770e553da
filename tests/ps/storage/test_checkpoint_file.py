"""A checkpoint is whole or refused; what it says is what was there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from downpour.ps.coordinator.ledger import Lease, Ledger
from downpour.ps.storage.checkpoint_file import (
    TRAINED,
    Checkpoint,
    CheckpointError,
    load,
    newest,
    numbers,
    path_of,
    prune,
    save,
)
from tests.support.pure.checkpoints import checkpoint


def same(a: Checkpoint, b: Checkpoint) -> bool:
    vectors = set(a.vectors) == set(b.vectors) and all(
        a.vectors[name].tobytes() == b.vectors[name].tobytes() for name in a.vectors
    )
    return vectors and a.facts.model_dump_json() == b.facts.model_dump_json()


def test_a_checkpoint_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = save(tmp_path, checkpoint(12))
    assert load(path).number == 12
    assert same(load(path), checkpoint(12))
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint-00000012.safetensors"]


@given(data=st.data())
def test_a_damaged_file_is_refused_and_the_previous_one_is_used(tmp_path_factory: pytest.TempPathFactory, data) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    save(folder, checkpoint(1, first=1.0))
    path = save(folder, checkpoint(2, first=2.0))
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans(), "torn"):
        content = content[: data.draw(st.integers(0, len(content) - 1), "length")]
    else:
        place = data.draw(st.integers(0, len(content) - 1), "place")
        content[place] ^= data.draw(st.integers(1, 255), "flip")
    path.write_bytes(content)
    try:
        found = load(path)
    except CheckpointError as error:
        assert path.name in str(error)
        used, refused = newest(folder)
        assert used is not None and used.number == 1 and len(refused) == 1
    else:  # blanks in the header may change without a difference
        assert same(found, checkpoint(2, first=2.0))


@given(content=st.binary(max_size=300))
def test_any_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = path_of(tmp_path_factory.mktemp("bytes"), 1)
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        load(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"format": "downpour checkpoint 1", "facts": "{}"}])
def test_a_file_of_another_program_is_refused(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    save_file({TRAINED: np.zeros(6, np.float32)}, path_of(tmp_path, 1), metadata)
    with pytest.raises(CheckpointError, match="checkpoint-00000001"):
        load(path_of(tmp_path, 1))


def test_the_last_checkpoints_are_kept_and_unfinished_ones_removed(tmp_path: Path) -> None:
    for number in range(1, 6):
        save(tmp_path, checkpoint(number))
    (tmp_path / ".checkpoint-00000006.safetensors.77.part").write_bytes(b"torn")
    prune(tmp_path, 2)
    assert numbers(tmp_path) == [5, 4]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_place_that_cannot_be_written_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match="file"):
        save(tmp_path / "file", checkpoint())
    assert newest(tmp_path / "file") == (None, [])


@given(
    samples=st.integers(1, 40), epochs=st.integers(1, 3), size=st.integers(1, 9), moves=st.lists(st.integers(0, 2**16))
)
def test_a_restored_ledger_continues_at_its_position(samples: int, epochs: int, size: int, moves: list[int]) -> None:
    """Every position is used exactly once, whether before or after the restart."""
    used: list[tuple[int, int]] = []

    def play(ledger: Ledger, moves: list[int], until_done: bool) -> None:
        open_leases: list[Lease] = []
        while moves or until_done and not ledger.finished:
            move = moves.pop() if moves else 1
            if move % 3 == 0 and open_leases:
                ledger.take_back(open_leases.pop(move % len(open_leases)).worker)
                continue
            lease = open_leases.pop(move % len(open_leases)) if open_leases and move % 2 else ledger.lease(move)
            if lease is None:
                if until_done:
                    for each in open_leases:
                        ledger.take_back(each.worker)
                    open_leases.clear()
                continue
            lease.worker = len(used) * 100_000 + move  # one lease for a worker
            step = lease.stop if until_done else min(lease.stop, lease.next + 1 + move % size)
            used.extend((lease.epoch, position) for position in range(lease.next, step))
            ledger.use(lease.number, step)
            if lease.next < lease.stop:
                open_leases.append(lease)

    first = Ledger(samples, epochs, size)
    play(first, list(moves), until_done=False)
    second = Ledger(samples, epochs, size + 1)
    second.restore(first.unused(), *first.position)
    assert second.used_total == len(used)
    play(second, [], until_done=True)
    assert sorted(used) == [(epoch, position) for epoch in range(epochs) for position in range(samples)]


@pytest.mark.parametrize("spans, epoch, position", [([(0, 3, 2)], 1, 0), ([(0, 0, 99)], 1, 0), ([], 9, 0), ([], 0, 99)])
def test_a_ledger_that_cannot_have_been_is_refused(
    spans: list[tuple[int, int, int]], epoch: int, position: int
) -> None:
    with pytest.raises(ValueError, match="ledger of 2 epochs of 20 samples"):
        Ledger(20, 2, 4).restore(spans, epoch, position)
