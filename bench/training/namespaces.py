"""Two network namespaces of this machine, joined by a virtual Ethernet pair, with a limited rate or an added delay.

Only root can create them. `python -m downpour.bench.training.namespaces LISTEN TARGET SECONDS` is a relay that
passes on what it receives after a delay, because not every kernel can delay packets.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from downpour.protos.logs import reason_of

SERVER_HOST, WORKER_HOST = "10.213.7.1", "10.213.7.2"
BURST_BYTES = 1 << 18  # more than the largest packet that the pair transfers, 64 KiB
READ_BYTES = 1 << 18
PENDING_CHUNKS = 1024  # of one direction of a relayed connection


@dataclass(frozen=True)
class Namespaces:
    """The commands that execute a command in each namespace.

    Attributes:
        server: The prefix of commands in the namespace of the servers, whose address is `SERVER_HOST`.
        worker: The prefix of commands in the namespace of the workers, whose address is `WORKER_HOST`.
    """

    server: tuple[str, ...]
    worker: tuple[str, ...]
    interface: str

    def transferred_bytes(self) -> int:
        """Return the bytes that the workers' interface has sent and received, including all headers."""
        files = [f"/sys/class/net/{self.interface}/statistics/{name}_bytes" for name in ("rx", "tx")]
        # The files of a namespace are visible to processes in it, which see another /sys.
        found = subprocess.run([*self.worker, "cat", *files], capture_output=True, text=True, check=True)
        return sum(map(int, found.stdout.split()))


@contextmanager
def two_namespaces(rate_mbit: int | None = None) -> Iterator[Namespaces]:
    """Create the namespaces within the block.

    Args:
        rate_mbit: The rate of each direction in Mbit/s; None for no limit.

    Raises:
        RuntimeError: `ip` or `tc` fails, for example because this process may not create namespaces.
    """
    names = (f"downpour-{os.getpid()}-ps", f"downpour-{os.getpid()}-worker")
    try:
        for name in names:
            _run("ip", "netns", "add", name)
            _run("ip", "-n", name, "link", "set", "lo", "up")
        _run("ip", "link", "add", "veth-ps", "netns", names[0], "type", "veth", "peer", "veth-w", "netns", names[1])
        for name, link, host in ((names[0], "veth-ps", SERVER_HOST), (names[1], "veth-w", WORKER_HOST)):
            _run("ip", "-n", name, "address", "add", f"{host}/24", "dev", link)
            _run("ip", "-n", name, "link", "set", link, "up")
            if rate_mbit is not None:
                limit = ("rate", f"{rate_mbit}mbit", "burst", str(BURST_BYTES), "latency", "50ms")
                _run("tc", "-n", name, "qdisc", "add", "dev", link, "root", "tbf", *limit)
        inside = [("ip", "netns", "exec", name) for name in names]
        yield Namespaces(inside[0], inside[1], "veth-w")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def _run(*command: str) -> None:
    try:
        subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", "") or reason_of(error)
        raise RuntimeError(
            f"network namespaces must be creatable here: root, iproute2; {' '.join(command)}: {reason.strip()}"
        ) from error


# ------------------------------------------------------------------------------------------------ relay


async def relay(listen: str, target: str, delay_s: float) -> None:
    """Pass on all connections to `listen`, `HOST:PORT`, to `target`; every byte is `delay_s` late in each direction."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = target.rsplit(":", 1)
        onward_reader, onward_writer = await asyncio.open_connection(host, int(port), limit=READ_BYTES)
        await asyncio.gather(_late(reader, onward_writer, delay_s), _late(onward_reader, writer, delay_s))

    host, port = listen.rsplit(":", 1)
    server = await asyncio.start_server(accept, host, int(port), limit=READ_BYTES)
    print(listen, flush=True)
    await server.serve_forever()


async def _late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    loop = asyncio.get_running_loop()
    pending: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(PENDING_CHUNKS)

    async def receive() -> None:
        chunk = b"-"
        while chunk:
            chunk = await reader.read(READ_BYTES)
            await pending.put((loop.time() + delay_s, chunk))

    receiving = asyncio.create_task(receive())
    try:
        while True:
            due_s, chunk = await pending.get()
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            if not chunk:
                break
            writer.write(chunk)
            await writer.drain()
    except OSError:
        pass  # the connection is broken
    finally:
        receiving.cancel()
        writer.close()


if __name__ == "__main__":
    asyncio.run(relay(sys.argv[1], sys.argv[2], float(sys.argv[3])))
