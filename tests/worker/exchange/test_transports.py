"""The registry of transports: a toy row trains, and the setting offers exactly the rows."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest, Unreachable
from downpour.protos.frame import Buffer, Frame
from downpour.protos.layout import TRAINED, Layout
from downpour.ps.config import Transport as TransportSetting
from downpour.worker.exchange.client import Client
from downpour.worker.exchange.push_info import PushInfo
from downpour.worker.exchange.transport import Transport
from downpour.worker.exchange.transports import AUTO, TRANSPORTS, Route

N, RATE = 5, np.float32(0.25)
SESSION = pb.RegisterReply(worker=0, incarnation=1, session=7, shards=[pb.ShardAddress(address="toy:1", generation=1)])
LAYOUT = Layout.of([("w", (N,), TRAINED)])


class InProcess(Transport):
    """A transport to a shard of plain gradient descent in this process."""

    def __init__(self, route: Route) -> None:
        super().__init__(route.shard.address, route.timeout_s)
        self.weights, self.version = np.zeros(N, np.float32), 0
        self.reply: Frame[pb.Reply] | None = None

    def close(self) -> None:
        pass

    def _reconnect(self) -> None:
        pass

    def send(self, header: pb.Request, *parts: Buffer) -> None:
        self._begin()
        vector = np.frombuffer(b"".join(bytes(part) for part in parts), np.float32)
        if header.kind == pb.INIT:
            self.weights = vector.copy()
        elif header.kind == pb.PUSH_PULL:
            assert header.base_version == self.version
            self.weights, self.version = self.weights - RATE * vector, self.version + 1
        self.reply = Frame(pb.Reply(version=self.version), memoryview(self.weights.tobytes()))

    def _repeat(self) -> None:
        raise AssertionError("nothing is lost within a process")

    def _await_reply(self) -> Frame[pb.Reply]:
        assert self.reply is not None
        return self.reply


def unreachable(route: Route) -> Transport:
    raise Unreachable(f"no way to {route.shard.address}")


@pytest.mark.parametrize("wanted", ["toy", AUTO])
def test_a_transport_is_one_row_and_trains(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    if wanted == AUTO:
        for name in list(TRANSPORTS):
            monkeypatch.setitem(TRANSPORTS, name, unreachable)
    monkeypatch.setitem(TRANSPORTS, "toy", InProcess)
    client = Client(SESSION, LAYOUT, "float32", 1.0, wanted)
    assert client.transports == ["toy"]
    client.initialise(np.ones(N, np.float32))
    pulled = client.pull()
    for _ in range(40):
        gradient = pulled.flat - np.arange(N, dtype=np.float32)
        pulled = client.push_pull(gradient, PushInfo(pulled.versions))
    np.testing.assert_allclose(pulled.flat, np.arange(N), atol=1e-3)
    assert pulled.versions == (40,)
    client.close()


def test_the_setting_offers_the_rows_of_the_registry() -> None:
    assert get_args(TransportSetting) == (AUTO, *TRANSPORTS)


def test_an_unknown_transport_is_named_with_those_that_there_are() -> None:
    with pytest.raises(InvalidRequest, match="must be one of auto, shm, grpc; received 'pigeon'"):
        Client(SESSION, LAYOUT, "float32", 1.0, "pigeon")


def test_auto_fails_only_when_the_last_transport_does(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(TRANSPORTS):
        monkeypatch.setitem(TRANSPORTS, name, unreachable)
    with pytest.raises(Unreachable, match="no way to toy:1"):
        Client(SESSION, LAYOUT, "float32", 1.0, AUTO)
