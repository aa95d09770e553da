"""The address under which others reach a server that listens on every address of its machine."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from downpour.deploy.launch.started_job import await_address
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest
from downpour.protos.settings import reachable
from downpour.ps.control_plane.servicer import host_of
from downpour.ps.control_plane.shard_link import ShardLinks
from tests.support.paths import ROOT

NAMESPACES = os.geteuid() == 0 and shutil.which("ip") is not None


@pytest.mark.parametrize("everywhere", ["0.0.0.0", "[::]"])
def test_a_server_that_listens_everywhere_is_where_it_has_been_reached(everywhere: str) -> None:
    assert reachable(f"{everywhere}:7171", "10.1.2.3") == "10.1.2.3:7171"
    assert reachable(f"{everywhere}:7171", "[fe80::1]") == "[fe80::1]:7171"
    assert reachable(f"{everywhere}:7171", "") == f"{everywhere}:7171"
    assert reachable("a:7171", "10.1.2.3") == "a:7171"


def joined_as(address: str, peer: str) -> str:
    """The address that the coordinator gives to workers for a shard that joins with `address` from `peer`."""
    addresses: list[str] = []
    links = ShardLinks(lambda shard: addresses.append(shard.address), lambda shard, event: None, lambda shard: None)

    async def events() -> AsyncIterator[pb.ShardEvent]:
        yield pb.ShardEvent(joined=pb.ShardAddress(shard=1, address=address))

    async def join() -> None:
        async for _ in links.serve(events(), host_of(peer)):
            break

    asyncio.run(join())
    return addresses[0]


def test_a_shard_of_another_machine_must_not_listen_on_loopback() -> None:
    assert joined_as("0.0.0.0:5", "ipv4:10.0.0.2:4711") == "10.0.0.2:5"
    assert joined_as("[::]:5", "ipv6:%5Bfe80::2%5D:4711") == "[fe80::2]:5"
    assert joined_as("127.0.0.1:5", "ipv4:127.0.0.1:4711") == "127.0.0.1:5"
    assert joined_as("b:5", "ipv4:10.0.0.2:4711") == "b:5"
    for loopback in ("127.0.0.1:5", "localhost:5", "[::1]:5"):
        with pytest.raises(InvalidRequest, match="--bind"):
            joined_as(loopback, "ipv4:10.0.0.2:4711")


@contextmanager
def two_machines() -> Iterator[tuple[list[str], list[str]]]:
    """Two network namespaces with a link, as prefixes of commands; their addresses are 10.79.0.1 and 10.79.0.2."""
    mark = uuid.uuid4().hex[:6]
    names = [f"dp{mark}a", f"dp{mark}b"]

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True)

    try:
        for name in names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("link", "add", f"v{mark}a", "netns", names[0], "type", "veth", "peer", f"v{mark}b", "netns", names[1])
        for number, name in enumerate(names, 1):
            link = f"v{mark}{name[-1]}"
            ip("-n", name, "addr", "add", f"10.79.0.{number}/24", "dev", link)
            ip("-n", name, "link", "set", link, "up")
        yield ["ip", "netns", "exec", names[0]], ["ip", "netns", "exec", names[1]]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)


@pytest.mark.slow
@pytest.mark.skipif(not NAMESPACES, reason="network namespaces need root and ip")
def test_a_worker_on_another_machine_trains_with_servers_that_listen_everywhere(tmp_path: Path) -> None:
    own = [sys.executable, "-P", "-m", "downpour.deploy.cli"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    job = ["--bind=0.0.0.0:0", "--insecure", "--workers=1", "--epochs=1", "--shards=2", f"--run-dir={tmp_path / 'run'}"]
    with two_machines() as (first, second):
        with (tmp_path / "ps.log").open("wb") as log:
            server = subprocess.Popen([*first, *own, "ps", *job], env=environment, stdout=log, stderr=log)
        port = await_address(server, tmp_path / "ps.log").rpartition(":")[2]
        shard = subprocess.Popen(
            [*second, *own, "ps", "--shard=1", f"--coordinator=10.79.0.1:{port}", "--bind=0.0.0.0:0", "--insecure"],
            env=environment, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        worker = [*second, *own, "worker", f"--server=10.79.0.1:{port}", "--xla=off"]
        try:
            assert subprocess.run(worker, env=environment, timeout=120).returncode == 0
            assert (server.wait(30), shard.wait(30)) == (0, 0)
        finally:
            for process in (server, shard):
                process.kill()
                process.wait()
