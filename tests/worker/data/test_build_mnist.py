"""The script that builds the file of MNIST: equal arrays give equal bytes, and other files than MNIST's are refused."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from downpour.worker.catalog.npz import ARRAYS, IDX_FILES
from downpour.worker.data.build_mnist import read_package, write_npz


def test_equal_arrays_give_equal_bytes_and_are_read_again(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    arrays = {name: draw.integers(0, 256, (5, 3), np.uint8) for name in ARRAYS}
    for file in ("first.npz", "second.npz"):
        write_npz(tmp_path / file, arrays)
    assert (tmp_path / "first.npz").read_bytes() == (tmp_path / "second.npz").read_bytes()
    with np.load(tmp_path / "first.npz", allow_pickle=False) as found:
        assert set(found.files) == set(ARRAYS)
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)


def test_a_package_with_other_files_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "package.tgz", "w:gz") as archive:
        for file in IDX_FILES:
            entry = tarfile.TarInfo(f"package/data/{file}")
            entry.size = 4
            archive.addfile(entry, io.BytesIO(b"none"))
    with pytest.raises(ValueError, match=f"{IDX_FILES[0]} must have the MD5 .* Download the package again"):
        read_package(tmp_path / "package.tgz")
