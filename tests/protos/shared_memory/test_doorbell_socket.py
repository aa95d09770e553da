"""The Unix sockets of shared memory: found by their paths, removed with their servers, refused where impossible."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from downpour.protos.shared_memory import doorbell_socket, memfd
from tests.support.cluster import Cluster, running
from tests.support.processes.shared_memory import LAYOUT, ONES, doorbell

pytestmark = pytest.mark.skipif(not memfd.available(), reason="this system has no memfd: auto is gRPC there")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder with a short path, because the path of a socket must be short."""
    with tempfile.TemporaryDirectory(prefix="doorbells-") as name:
        yield Path(name)


def test_a_doorbell_in_a_folder_is_found_by_its_path(tmp_path: Path, folder: Path) -> None:
    with running(tmp_path, workers=1, learning_rate=1, doorbell_dir=folder) as cluster:
        (member,) = cluster.train(LAYOUT, 1, transport="shm")
        path = Path(doorbell(member))
        assert list(folder.iterdir()) == [path] and path.stat().st_mode & 0o777 == 0o600
        np.testing.assert_array_equal(member.push_pull(ONES).flat, -ONES)
        cluster.servers[0].child.terminate()
        cluster.servers[0].wait()
        assert not list(folder.iterdir())


def test_a_server_removes_the_doorbells_of_killed_servers_and_no_others(tmp_path: Path, folder: Path) -> None:
    with running(tmp_path, workers=1, doorbell_dir=folder) as cluster:
        cluster.servers[0].kill()
    (dead,) = folder.iterdir()
    (other := folder / "downpour-notes").touch()
    living, name = doorbell_socket.listen(str(folder))
    with living:
        assert set(folder.iterdir()) == {other, Path(name)} and dead != Path(name)
        second, second_name = doorbell_socket.listen(str(folder))
        assert set(folder.iterdir()) == {other, Path(name), Path(second_name)}
        doorbell_socket.close(second, second_name)
        assert set(folder.iterdir()) == {other, Path(name)}


def test_a_missing_folder_for_doorbells_is_refused(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    server = cluster.start(
        "ps-0", "-m", "downpour.ps", f"--runs-dir={tmp_path / 'runs'}", f"--doorbell-dir={tmp_path / 'no'}"
    )
    assert server.wait() == 1
    assert "--doorbell-dir must be a folder" in server.errors and "No such file" in server.errors
    assert not list((tmp_path / "runs").glob("*"))
    far = cluster.start("ps-1", "-m", "downpour.ps", f"--doorbell-dir=/{'x' * doorbell_socket.FOLDER_LIMIT_BYTES}")
    assert far.wait() == 2
    assert "--doorbell-dir must be a folder whose path has at most" in far.errors
    cluster.close()
