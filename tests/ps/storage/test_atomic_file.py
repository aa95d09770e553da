"""A file appears when it is whole, and of one that is not nothing is left."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors import safe_open

from downpour.protos.system import disk
from downpour.ps.storage.atomic_file import atomic_write
from downpour.ps.storage.safetensors_file import write_tensors
from tests.support.paths import ROOT

KILLED = """
import os, signal, sys
from pathlib import Path
from typing import Any
from downpour.ps.storage.atomic_file import atomic_write
with atomic_write(Path(sys.argv[1])) as place:
    place.write_bytes(b"new" * 100_000)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(params=["without a name", "beside"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "beside":
        monkeypatch.setattr(disk, "unnamed_file", lambda folder: None)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_replaced_atomically(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "file"
    for content in (b"first", b"second"):
        before = path.read_bytes() if path.exists() else None
        with atomic_write(path, durable) as place:
            place.write_bytes(content)
            assert (path.read_bytes() if path.exists() else None) == before
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("way")
def test_a_failed_write_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as place:
        place.write_bytes(b"torn")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("way")
def test_a_missing_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "none" / "file") as place:
        place.write_bytes(b"")


@pytest.mark.skipif(sys.platform != "linux", reason="files without a name are Linux's")
def test_nothing_is_left_of_a_killed_writer(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "file")], cwd=ROOT, check=False)
    assert ended.returncode == -9 and list(tmp_path.iterdir()) == []


@given(
    vectors=st.dictionaries(st.text(max_size=9).filter(lambda name: name != "__metadata__"),
                            arrays(np.float32, st.integers(0, 40))),
    metadata=st.dictionaries(st.text(max_size=9), st.text(max_size=30)),
)  # fmt: skip
def test_the_library_reads_what_is_written(
    tmp_path_factory: pytest.TempPathFactory, vectors: dict[str, np.ndarray], metadata: dict[str, str]
) -> None:
    path = tmp_path_factory.mktemp("tensors") / "file"
    write_tensors(path, vectors, metadata)
    with safe_open(path, framework="numpy") as file:
        assert (file.metadata() or {}) == metadata
        assert {name: file.get_tensor(name).tobytes() for name in file.keys()} == {
            name: vector.tobytes() for name, vector in vectors.items()
        }


@pytest.mark.parametrize("lacking", ["link", "fsync of folders"])
def test_a_file_system_that_lacks_an_operation_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    plain = os.fsync

    def refuse(*arguments: Any, **named: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            refuse()
        plain(descriptor)

    monkeypatch.setattr(os, "link", refuse) if lacking == "link" else monkeypatch.setattr(os, "fsync", fsync)
    with atomic_write(tmp_path / "file", durable=True) as place:
        place.write_text("new")
    assert (tmp_path / "file").read_text() == "new" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("lost", ["folder", "space"])
def test_an_error_names_the_file_and_repeats_its_words(tmp_path: Path, lost: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    messages = set()
    if lost == "folder":
        folder.rmdir()
    for _ in range(3):
        with pytest.raises(OSError) as caught, atomic_write(folder / "file", durable=True) as place:
            if lost == "space":
                raise OSError(errno.ENOSPC, "No space left on device", str(place))
            place.write_text("new")
        messages.add(str(caught.value))
    assert len(messages) == 1 and repr(str(folder / "file")) in messages.pop()
