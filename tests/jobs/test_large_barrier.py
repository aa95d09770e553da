"""Five hundred workers wait at one barrier of a server process, which needs no thread for any of them."""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos import parameter_server_pb2_grpc as rpc
from downpour.protos.channel import SESSION_KEY, open_aio_channel
from downpour.protos.frame import Decoder, encode
from downpour.protos.layout import Layout
from downpour.protos.protocol import PROTOCOL
from downpour.worker.exchange.grpc_stream import METHOD
from tests.support.paths import ROOT

WORKERS, CHANNELS, SIZE, ROUNDS = 500, 4, 3, 2
TIMEOUT_S = 120.0


class Session:
    """One worker: a session and its stream, on a channel that several workers share."""

    def __init__(self, stub: rpc.CoordinatorStub, channel: grpc.aio.Channel, session: pb.RegisterReply) -> None:
        self.stub, self.session, self.seq, self.version = stub, session, 0, 0
        metadata = ((SESSION_KEY, str(session.session)),)
        exchange: Any = channel.stream_stream(METHOD, None, None)
        self.call: Any = exchange(metadata=metadata)
        self.decoder = Decoder(pb.Reply, lambda header: 4 * SIZE)
        self.weights = np.empty(0, np.float32)

    async def send(self, header: pb.Request, vector: np.ndarray | None = None) -> None:
        for message in encode(header, b"" if vector is None else vector.tobytes()):
            await self.call.write(message)

    async def receive(self) -> pb.Reply:
        while True:
            frame = self.decoder.feed(await self.call.read())
            if frame is not None and not frame.header.waiting:
                self.weights = np.frombuffer(frame.payload, np.float32)
                self.version = frame.header.version
                return frame.header

    async def push(self, value: float) -> None:
        self.seq += 1
        header = pb.Request(
            kind=pb.PUSH_PULL, worker=self.session.worker, incarnation=self.session.incarnation, seq=self.seq,
            base_version=self.version, generation=self.session.shards[0].generation, codec="float32", samples=1,
        )  # fmt: skip
        await self.send(header, np.full(SIZE, value, np.float32))


async def opened(stub: rpc.CoordinatorStub, channel: grpc.aio.Channel, job: str) -> Session:
    request = pb.RegisterRequest(
        protocol=PROTOCOL, job=job, layout=Layout.of([("w", (SIZE,), pb.TRAINED)]).to_proto(),
        data=pb.DatasetInfo(name="numbers", checksum="0", train_samples=1 << 30),
    )  # fmt: skip
    return Session(stub, channel, await stub.Register(request, timeout=TIMEOUT_S))


def buffered_pushes(metrics: str) -> float:
    """Return how many pushes the shard holds until the barrier opens."""
    with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=TIMEOUT_S) as reply:
        families = text_string_to_metric_families(reply.read().decode())
    (depth,) = (
        sample for family in families for sample in family.samples if "buffered_pushes" in sample.labels.values()
    )
    return float(depth.value)


async def all_wait_at_the_barrier(address: str, metrics: str, threads: Path) -> None:
    channels = [open_aio_channel(address) for _ in range(CHANNELS)]
    stubs = [rpc.CoordinatorStub(channel) for channel in channels]
    job = (await stubs[0].Describe(pb.DescribeRequest(protocol=PROTOCOL), timeout=TIMEOUT_S)).job
    first = await opened(stubs[0], channels[0], job)
    await stubs[0].Ready(pb.ReadyRequest(session=first.session.session), timeout=TIMEOUT_S)
    await first.send(pb.Request(kind=pb.INIT), np.zeros(SIZE, np.float32))
    await first.receive()
    await stubs[0].Ready(
        pb.ReadyRequest(session=first.session.session, initialised=True, compiled=True), timeout=TIMEOUT_S
    )
    others = [await opened(stubs[n % CHANNELS], channels[n % CHANNELS], job) for n in range(1, WORKERS)]
    sessions = [first, *others]
    for session in sessions:  # who has a lease counts at the barrier
        name = session.session.session
        if session is not first:
            await session.stub.Ready(pb.ReadyRequest(session=name, compiled=True), timeout=TIMEOUT_S)
        task = await session.stub.Lease(pb.LeaseRequest(session=name, wait_s=1.0), timeout=TIMEOUT_S)
        assert task.kind == pb.TRAIN
    for turn in range(1, ROUNDS + 1):
        for number, session in enumerate(sessions[:-1]):
            await session.push(float(number))
        blocked = [asyncio.create_task(session.receive()) for session in sessions[:-1]]
        while await asyncio.to_thread(buffered_pushes, metrics) < WORKERS - 1:
            assert not any(task.done() for task in blocked)
        assert len(list(threads.iterdir())) < 100
        await sessions[-1].push(float(WORKERS - 1))
        replies = await asyncio.gather(*blocked, sessions[-1].receive())
        assert {reply.version for reply in replies} == {turn}
        assert {reply.outcome for reply in replies} == {pb.APPLIED}
        assert {reply.staleness for reply in replies} == {0}
    mean = (WORKERS - 1) / 2
    for session in sessions:
        np.testing.assert_allclose(session.weights, -ROUNDS * mean, rtol=1e-4)
    for session in sessions:
        session.call.cancel()
    for channel in channels:
        await channel.close(None)


def test_five_hundred_workers_wait_at_one_barrier(tmp_path: Path) -> None:
    async def run() -> None:
        server = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "downpour.ps", "--model=numbers", "--dataset=numbers", "--mode=bsp", "--workers=1",
            "--learning-rate=1", "--lease-batches=1", "--session-s=600", "--metrics-port=0",
            f"--run-dir={tmp_path / 'run'}",
            cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            assert server.stdout is not None
            line = await asyncio.wait_for(server.stdout.readline(), TIMEOUT_S)
            listening = json.loads(line)
            threads = Path(f"/proc/{server.pid}/task")
            await asyncio.wait_for(
                all_wait_at_the_barrier(listening["address"], listening["metrics"], threads), TIMEOUT_S
            )
        finally:
            server.kill()
            await server.wait()

    asyncio.run(run())
