"""The registry of transports: one row adds a transport to the settings, the server and the worker."""

from __future__ import annotations

import numpy as np
import pytest

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos import transports
from downpour.protos.errors import InvalidRequest, Unreachable
from downpour.protos.frame import Buffer, Frame
from downpour.protos.layout import TRAINED, Layout
from downpour.protos.settings import parse
from downpour.protos.transports import AUTO, TRANSPORTS, TransportRow
from downpour.ps.config import ServerSettings
from downpour.ps.core.consistency import consistency_of
from downpour.ps.core.optimizer import Optimizer
from downpour.ps.core.rules.hyperparameters import Hyperparameters
from downpour.ps.core.shard import Shard
from downpour.ps.data_plane.listeners import Listener, ListenRequest, open_listeners
from downpour.ps.data_plane.request_handler import RequestHandler
from downpour.ps.data_plane.shard_runtime import ShardRuntime
from downpour.worker.exchange.client import Client
from downpour.worker.exchange.push_info import PushInfo
from downpour.worker.exchange.transport import Transport
from downpour.worker.exchange.transports import Route

N, RATE = 5, 0.25
MEMBER = pb.Member(worker=0, incarnation=1, session=7)
SESSION = pb.RegisterReply(worker=0, incarnation=1, session=7, shards=[pb.ShardAddress(address="toy:1", generation=1)])
LAYOUT = Layout.of([("w", (N,), TRAINED)])
HERE = __name__


class ToyListener:
    """Serves workers of this process, which find it by a name."""

    opened: dict[str, ToyListener] = {}

    def __init__(self, request: ListenRequest) -> None:
        self.handler, self.connected = request.handler, request.connected
        self.opened["toy listener"] = self

    def add_to(self, address: pb.ShardAddress) -> None:
        address.doorbell = "toy listener"

    def close(self) -> None:
        del self.opened["toy listener"]


class ToyTransport(Transport):
    """Calls the request handler of a listener in this process."""

    def __init__(self, route: Route) -> None:
        super().__init__(route.shard.address, route.timeout_s)
        listener = ToyListener.opened[route.shard.doorbell]
        self.handler = listener.handler
        listener.connected()
        self.reply: Frame[pb.Reply] | None = None

    def send(self, header: pb.Request, *parts: Buffer) -> None:
        self._begin()
        payload = memoryview(b"".join(bytes(part) for part in parts))
        reply, buffer = self.handler.handle(MEMBER, header, payload).finish()
        self.reply = Frame(reply, memoryview(buffer.array.tobytes() if buffer else b""))

    def close(self) -> None:
        pass

    def _reconnect(self) -> None:
        pass

    def _repeat(self) -> None:
        raise AssertionError("nothing is lost within a process")

    def _await_reply(self) -> Frame[pb.Reply]:
        assert self.reply is not None
        return self.reply


def listen_toy(request: ListenRequest) -> Listener:
    return ToyListener(request)


def connect_toy(route: Route) -> Transport:
    return ToyTransport(route)


def unreachable(route: Route) -> Transport:
    raise Unreachable(f"no way to {route.shard.address}")


def listen_never(request: ListenRequest) -> Listener | None:
    return None


NOWHERE = TransportRow("never", f"{HERE}:unreachable", f"{HERE}:listen_never")
TOY = TransportRow("a toy", f"{HERE}:connect_toy", f"{HERE}:listen_toy")


@pytest.mark.parametrize("wanted", ["toy", AUTO])
def test_a_transport_is_one_row_and_trains(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    for name in list(TRANSPORTS):
        monkeypatch.setitem(TRANSPORTS, name, NOWHERE)
    with pytest.raises(SystemExit):
        parse(ServerSettings, ["--transport=toy"], "downpour ps")
    monkeypatch.setitem(TRANSPORTS, "toy", TOY)
    settings = parse(ServerSettings, [f"--transport={wanted}"], "downpour ps")
    runtime = ShardRuntime(0)
    runtime.builder.slice = LAYOUT.cut(1)[0]
    optimizer = Optimizer("sgd", Hyperparameters(learning_rate=RATE), N)
    runtime.shard = Shard(np.ones(N, np.float32), optimizer, consistency_of("async"))
    runtime.shard.join(MEMBER.worker, MEMBER.incarnation)
    listeners = open_listeners(ListenRequest(settings, RequestHandler(runtime), lambda worker: None))
    session = pb.RegisterReply(worker=0, incarnation=1, session=7, shards=[listeners.address(0, "toy:1")])
    client = Client(session, LAYOUT, "float32", 1.0, settings.transport)
    assert client.transports == ["toy"] and runtime.transports == {"toy"}
    pulled = client.pull()
    for _ in range(40):
        gradient = pulled.flat - np.arange(N, dtype=np.float32)
        pulled = client.push_pull(gradient, PushInfo(pulled.versions))
    np.testing.assert_allclose(pulled.flat, np.arange(N), atol=1e-3)
    assert pulled.versions == (40,)
    client.close()
    listeners.close()
    assert not ToyListener.opened


@pytest.mark.parametrize("name", list(TRANSPORTS))
def test_a_row_names_functions_of_both_sides(name: str) -> None:
    row = TRANSPORTS[name]
    assert row.connect.startswith("downpour.worker.exchange.") and row.listen.startswith("downpour.ps.data_plane.")
    assert callable(transports.load(row.connect))
    assert callable(transports.load(TRANSPORTS[name].listen))


def test_help_describes_every_row() -> None:
    text = ServerSettings.model_fields["transport"].description or ""
    assert all(f"{name}: {row.description}" in text for name, row in TRANSPORTS.items())


def test_an_unknown_transport_is_refused_with_the_choices() -> None:
    with pytest.raises(InvalidRequest, match="must be one of auto, shm, tcp, grpc; received 'pigeon'"):
        Client(SESSION, LAYOUT, "float32", 1.0, "pigeon")


def test_auto_fails_only_when_the_last_transport_does(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(TRANSPORTS):
        monkeypatch.setitem(TRANSPORTS, name, NOWHERE)
    with pytest.raises(Unreachable, match="no way to toy:1"):
        Client(SESSION, LAYOUT, "float32", 1.0, AUTO)
