"""The references of the transport benchmark: echoes of the same bytes, with the server in another process.

An echo server returns a payload once it has received all of it, as a push-pull must, and does nothing else with it.
`python -m downpour.bench.speed.echo unix|tcp|grpc` runs a server.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from downpour.bench.module_process import module_command, module_environment
from downpour.protos.channel import CLIENT_OPTIONS, SERVER_OPTIONS
from downpour.protos.frame import CHUNK_BYTES

COUNT_BYTES = 8


def cut(payload: bytes) -> list[bytes]:
    """Divide a payload into messages of the size that the project's stream uses; the first contains their number."""
    count = -(-len(payload) // CHUNK_BYTES)
    parts = [payload[start : start + CHUNK_BYTES] for start in range(0, len(payload), CHUNK_BYTES)]
    return [count.to_bytes(COUNT_BYTES, "little") + parts[0][COUNT_BYTES:], *parts[1:]]


@contextmanager
def serving(kind: str) -> Iterator[str]:
    """Run an echo server within the block and yield its address."""
    command = module_command("downpour.bench.speed.echo", kind)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=module_environment()
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


@contextmanager
def unix_echo(size_bytes: int) -> Iterator[Callable[[], None]]:
    """Yield a function that makes a round trip through a Unix stream socket, into a preallocated buffer."""
    with serving("unix") as address, socket.socket(socket.AF_UNIX) as line:
        line.connect(address)
        yield _trip(line, size_bytes)


@contextmanager
def tcp_echo(size_bytes: int) -> Iterator[Callable[[], None]]:
    """Yield a function that makes a round trip over a TCP connection to this host, into a preallocated buffer."""
    with serving("tcp") as address:
        host, port = address.split(":")
        with socket.create_connection((host, int(port))) as line:
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield _trip(line, size_bytes)


def _trip(line: socket.socket, size_bytes: int) -> Callable[[], None]:
    # Written to: pages that were only read are the same physical page, which fits into every cache.
    payload, back = b"\1" * size_bytes, bytearray(size_bytes)
    line.sendall(size_bytes.to_bytes(COUNT_BYTES, "little"))

    def trip() -> None:
        line.sendall(payload)
        _receive(line, back)

    return trip


@contextmanager
def grpc_echo(size_bytes: int, arrays: bool = False) -> Iterator[Callable[[], None]]:
    """Yield a function that makes a round trip through a gRPC stream.

    Args:
        size_bytes: The size of the payload in each direction.
        arrays: Whether the messages are created from an array and copied into another one, as is necessary if payloads
            are arrays; otherwise they are created in advance and discarded.
    """
    fixed, array, back = cut(bytes(size_bytes)), np.zeros(size_bytes, np.uint8), np.empty(size_bytes, np.uint8)
    loop = asyncio.new_event_loop()

    async def opened(address: str) -> tuple[grpc.aio.Channel, Any]:
        channel = grpc.aio.insecure_channel(address, options=CLIENT_OPTIONS)
        exchange: Any = channel.stream_stream("/Echo/Exchange", None, None)
        return channel, exchange()

    async def turn() -> None:
        count, first, filled = len(fixed), fixed[0][:COUNT_BYTES], 0
        for index in range(count):
            if arrays:
                part = array.data[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
                await call.write(bytes(part) if index else b"".join((first, part[COUNT_BYTES:])))
            else:
                await call.write(fixed[index])
        for _ in range(count):
            message = await call.read()
            if arrays and count > 1:  # a single message can be read in place
                back.data[filled : filled + len(message)] = message
                filled += len(message)

    with serving("grpc") as address:
        channel, call = loop.run_until_complete(opened(address))
        yield lambda: loop.run_until_complete(turn())
        call.cancel()
        loop.run_until_complete(channel.close(None))
        if left := asyncio.all_tasks(loop):
            loop.run_until_complete(asyncio.wait(left, timeout=1.0))
        loop.close()


def _receive(line: socket.socket, buffer: bytearray) -> bool:
    view, filled = memoryview(buffer), 0
    while filled < len(view):
        count = line.recv_into(view[filled:])
        if not count:
            return False
        filled += count
    return True


def _serve_unix() -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = str(Path(folder) / "echo")
        listener.bind(path)
        listener.listen(1)
        print(path, flush=True)
        _echo(listener.accept()[0])


def _serve_tcp() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(f"127.0.0.1:{listener.getsockname()[1]}", flush=True)
        line, _ = listener.accept()
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _echo(line)


def _echo(line: socket.socket) -> None:
    buffer = bytearray(int.from_bytes(line.recv(COUNT_BYTES), "little"))
    while _receive(line, buffer):
        line.sendall(buffer)


async def _serve_grpc() -> None:
    async def echo(_: object, context: Any) -> None:
        while (message := await context.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
            messages = [message]
            for _ in range(int.from_bytes(message[:COUNT_BYTES], "little") - 1):
                messages.append(await context.read())
            for message in messages:
                await context.write(message)

    server = grpc.aio.server(options=SERVER_OPTIONS)
    method: Any = grpc.stream_stream_rpc_method_handler(echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Echo", {"Exchange": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    match sys.argv[1]:
        case "unix":
            _serve_unix()
        case "tcp":
            _serve_tcp()
        case _:
            asyncio.run(_serve_grpc())
