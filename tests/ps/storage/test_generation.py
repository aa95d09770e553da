"""The generation of a start is found whatever has become of the file that notes it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downpour.ps.storage.checkpoint_file import save
from downpour.ps.storage.run_directory import LARGEST_GENERATION, RunDirectory
from tests.support.pure.checkpoints import checkpoint

DAMAGED = [None, b"", b"\n", b"-3", b"0", b"one", b"\xff\xfe", b"9" * 40, str(LARGEST_GENERATION).encode(), b"\0" * 9]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_run_without_checkpoints_begins_with_generation_one(tmp_path: Path, content: bytes | None) -> None:
    run = RunDirectory(tmp_path / "run")
    if content is not None:
        (run.path / "generation").write_bytes(content)
    assert run.begin_generation() == 1
    assert run.begin_generation() == 2


@pytest.mark.parametrize("content", DAMAGED)
def test_a_run_with_checkpoints_is_never_taken_for_a_new_one(tmp_path: Path, content: bytes | None) -> None:
    run = RunDirectory(tmp_path / "run")
    run.checkpoints.mkdir()
    save(run.checkpoints, checkpoint())
    if content is not None:
        (run.path / "generation").write_bytes(content)
    assert run.begin_generation() == checkpoint().facts.generation + 1


@pytest.mark.parametrize("content", DAMAGED)
def test_an_unreadable_checkpoint_implies_an_earlier_generation(tmp_path: Path, content: bytes | None) -> None:
    run = RunDirectory(tmp_path / "run")
    run.checkpoints.mkdir()
    (run.checkpoints / "checkpoint-00000003.safetensors").write_bytes(b"torn")
    if content is not None:
        (run.path / "generation").write_bytes(content)
    assert run.begin_generation() == 2
    assert (run.checkpoints / "checkpoint-00000003.safetensors").read_bytes() == b"torn"


@given(content=st.binary(max_size=64))
def test_any_bytes_give_a_generation(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    run = RunDirectory(tmp_path_factory.mktemp("run"))
    (run.path / "generation").write_bytes(content)
    generation = run.begin_generation()
    assert 1 <= generation <= LARGEST_GENERATION
    assert run.begin_generation() == generation + 1 or generation == LARGEST_GENERATION
