"""The network of a simulated world: connections between processes, with delays, resets and partitions."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

import grpc

from downpour.bench.world.system.scheduler import World, exponential

if TYPE_CHECKING:
    from downpour.bench.world.system.client_channel import ClientEnd
    from downpour.bench.world.system.process import VirtualProcess
    from downpour.bench.world.system.server_calls import ServerEnd, VirtualServer

LATENCY_S = 0.0004  # mean of the exponential part of a message's delay
LINKS = (1.0, 1.0, 1.0, 8.0, 40.0)  # factors of the latencies between two machines
SLOW_SHARE, SLOW_S = 0.02, 0.05  # fraction of messages that wait for a retransmission, and their largest extra delay
KEEPALIVE_S = 20.0  # time after which both sides close a connection on which nothing arrives
REFUSED = "failed to connect to all addresses; connection refused"
RESET = "Socket closed"


class Observer(Protocol):
    """An object that observes the messages of a network."""

    def request(self, call: VirtualCall, message: bytes) -> None:
        """Observe a message that a client sends."""

    def reply(self, call: VirtualCall, message: bytes) -> None:
        """Observe a message that arrives at a client."""


class NoObserver:
    """The observer of a network whose messages are not recorded."""

    def request(self, call: VirtualCall, message: bytes) -> None:
        """Ignore a message that a client sends."""

    def reply(self, call: VirtualCall, message: bytes) -> None:
        """Ignore a message that arrives at a client."""


class VirtualCall:
    """One call over a connection, with an end on each side; messages of one direction arrive in order."""

    def __init__(self, connection: Connection, method: str, metadata: tuple[tuple[str, str], ...]) -> None:
        """Create a call that the server does not know of yet."""
        self.connection, self.method, self.metadata = connection, method, metadata
        self.client_end: ClientEnd
        self.server_end: ServerEnd | None = None
        self._newest_s = [0.0, 0.0]

    def to_server(self, act: Callable[..., None], *arguments: Any) -> None:
        """Call `act` in the server's process when this message arrives, after all messages sent before."""
        self._send(0, self.connection.client, self.connection.server.process, act, arguments)

    def to_client(self, act: Callable[..., None], *arguments: Any) -> None:
        """Call `act` in the client's process when this message arrives, after all messages sent before."""
        self._send(1, self.connection.server.process, self.connection.client, act, arguments)

    def end(self, code: grpc.StatusCode, details: str) -> None:
        """End the call on the client's side."""
        self.connection.calls.pop(self, None)
        self.client_end.end(code, details)

    def break_off(self, code: grpc.StatusCode, details: str) -> None:
        """Report to the client that the connection broke, after all messages that still arrive."""
        network = self.connection.network
        learns_s = max(network.arrival_s(self.connection), self._newest_s[1] + 1e-9)
        network.world.at(learns_s, self.connection.client, self.client_end.end, code, details)

    def _send(
        self,
        direction: int,
        sender: VirtualProcess,
        receiver: VirtualProcess,
        act: Callable[..., None],
        arguments: tuple[Any, ...],
    ) -> None:
        connection = self.connection
        if connection.broken or not sender.alive:
            return
        arrives_s = max(connection.network.arrival_s(connection), self._newest_s[direction] + 1e-9)
        self._newest_s[direction] = arrives_s
        connection.network.world.at(arrives_s, receiver, self._arrive, act, arguments)

    def _arrive(self, act: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if not self.connection.drops:
            act(*arguments)

    def reply(self, data: bytes) -> None:
        """Give a message of the server to the client, unless the connection breaks just before it arrives."""
        client, connection = self.connection.client, self.connection
        client.replies += 1
        if client.replies in client.lost_replies:
            connection.reset(drops=True)
            connection.drops = True  # also if it has broken before, and messages still arrived
            return
        connection.network.observer.reply(self, data)
        self.client_end.message(data)


class Connection:
    """A connection of a client process to a server.

    Attributes:
        broken: Whether nothing can be sent any more.
        drops: Whether messages that were under way when the connection broke are lost.
        calls: The calls that have not ended.
        machines: The names of the machines of both sides.
    """

    def __init__(self, network: VirtualNetwork, client: VirtualProcess, server: VirtualServer) -> None:
        """Connect a process to a server."""
        self.network, self.client, self.server = network, client, server
        self.machines = frozenset((client.machine.name, server.process.machine.name))
        self.broken = self.drops = False
        self.calls: dict[VirtualCall, None] = {}
        client.on_end.append(self.reset)
        network.connections[self] = None

    def open_call(self, method: str, metadata: tuple[tuple[str, str], ...], end: ClientEnd) -> VirtualCall:
        """Begin a call, and send its beginning to the server."""
        call = VirtualCall(self, method, metadata)
        call.client_end = end
        self.calls[call] = None
        call.to_server(self.server.accept, call)
        return call

    def reset(
        self, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE, details: str = RESET, drops: bool | None = None
    ) -> None:
        """Break the connection. Each side detects this by itself, after a random delay."""
        if self.broken:
            return
        self.broken = True
        self.drops = self.network.world.random.random() < 0.5 if drops is None else drops
        self.network.connections.pop(self, None)
        world = self.network.world
        for call in self.calls:
            if self.client.alive:
                call.break_off(code, details)
            if self.server.process.alive:
                world.at(self.network.arrival_s(self), self.server.process, self.server.disconnected, call)
        self.calls.clear()


class VirtualNetwork:
    """All listeners and connections of a world.

    Attributes:
        listeners: The servers that listen, by address.
        connections: The connections that are not broken.
        observer: The object that observes all messages.
    """

    def __init__(self, world: World, slow_links: int | None = None, observer: Observer | None = None) -> None:
        """Create a network without listeners.

        Args:
            world: The world.
            slow_links: The seed of the latencies of the links between machines; None if all are equal.
            observer: The object that observes all messages; None if nothing does.
        """
        self.world, self._slow_links = world, slow_links
        self._factors: dict[frozenset[str], float] = {}
        self.observer: Observer = observer or NoObserver()
        self.listeners: dict[str, VirtualServer] = {}
        self.connections: dict[Connection, None] = {}
        self._cut_until_s: dict[frozenset[str], float] = {}
        self._awaited: dict[tuple[str, str], dict[int, Callable[[VirtualCall], None]]] = {}
        self._arrived: dict[tuple[str, str], int] = {}

    def connect(self, client: VirtualProcess, address: str) -> Connection | None:
        """Return a connection to the server at an address; None if none listens there."""
        server = self.listeners.get(address)
        if server is None or not server.process.alive:
            return None
        connection = Connection(self, client, server)
        if self._cut_s(connection) > self.world.now + KEEPALIVE_S:
            self.world.at(self.world.now + KEEPALIVE_S, None, connection.reset)
        return connection

    def when_arrives(self, process: str, method: str, number: int, act: Callable[[VirtualCall], None]) -> None:
        """Call a function just after a message of a client has arrived at a server.

        Args:
            process: The name of the client or the server.
            method: The name of the method, without that of its service.
            number: The number of the message, from 1, among those of this method that the process sends or receives.
            act: The function, which receives the call.
        """
        self._awaited.setdefault((process, method), {})[number] = act

    def arrived(self, call: VirtualCall) -> None:
        """Count a message of a client that has arrived at a server, and call what waits for it."""
        if not self._awaited:
            return
        method = call.method.rpartition("/")[2]
        for process in (call.connection.client, call.connection.server.process):
            awaited = self._awaited.get((process.name, method))
            if awaited is not None:
                number = self._arrived[process.name, method] = self._arrived.get((process.name, method), 0) + 1
                if number in awaited:
                    self.world.at(self.world.now, None, awaited[number], call)

    def latency_s(self, connection: Connection | None = None) -> float:
        """Return the delay of a message, in seconds."""
        random = self.world.random
        delay_s = 0.0001 + exponential(random, LATENCY_S)
        if self._slow_links is not None and connection is not None:
            delay_s *= self._factor(connection.machines)
        return delay_s + random.random() * SLOW_S if random.random() < SLOW_SHARE else delay_s

    def _factor(self, machines: frozenset[str]) -> float:
        if machines not in self._factors:
            rng = Random(f"link {self._slow_links} {sorted(machines)}")
            self._factors[machines] = rng.choice(LINKS)
        return self._factors[machines]

    def arrival_s(self, connection: Connection) -> float:
        """Return the virtual time at which a message that is sent now arrives."""
        return max(self.world.now, self._cut_s(connection)) + self.latency_s(connection)

    def cut_off(self, first: str, second: str, seconds: float) -> None:
        """Partition two machines: messages between them are delayed until the partition ends.

        Connections between them are closed after `KEEPALIVE_S` if the partition lasts longer.
        """
        until_s = self.world.now + seconds
        self._cut_until_s[frozenset((first, second))] = until_s
        if seconds > KEEPALIVE_S:
            self.world.at(self.world.now + KEEPALIVE_S, None, self._give_up, {first, second})

    def reset_connections(self, process: VirtualProcess) -> None:
        """Break all connections of a process."""
        for connection in list(self.connections):
            if process in (connection.client, connection.server.process):
                connection.reset()

    def _give_up(self, machines: set[str]) -> None:
        for connection in list(self.connections):
            if connection.machines == machines:
                connection.reset()

    def _cut_s(self, connection: Connection) -> float:
        return self._cut_until_s.get(connection.machines, 0.0) if self._cut_until_s else 0.0
