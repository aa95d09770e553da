"""The data-plane client: it pulls and pushes whole flat vectors, which are divided into one slice for each shard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.chunked_vector import ChunkedVector
from downpour.protos.codecs.codec import codec_named
from downpour.protos.coverage import Coverage
from downpour.protos.errors import DownpourError
from downpour.protos.frame import Buffer, Frame
from downpour.protos.layout import Layout, Slice
from downpour.worker.exchange.error_feedback import ErrorFeedback
from downpour.worker.exchange.grpc_stream import Loop
from downpour.worker.exchange.pages import pages
from downpour.worker.exchange.push_info import PushInfo
from downpour.worker.exchange.transport import Transport
from downpour.worker.exchange.transports import Route, connect


@dataclass(frozen=True)
class Pulled:
    """The result of a pull.

    Attributes:
        flat: The weights `float32[n + m]`, which must not be written to. They are valid until the next request is
            sent, or with `overlap` until the one after it.
        versions: The version of the weights on every shard.
        replies: The header of every shard's reply.
    """

    flat: np.ndarray
    versions: tuple[int, ...]
    replies: tuple[pb.Reply, ...]


class Client:
    """One worker's connections to all shards.

    Attributes:
        transports: The name of the transport to each shard.
        pushed: Whether the shards have replied to a push.
    """

    def __init__(
        self,
        session: pb.RegisterReply,
        layout: Layout,
        codec: str,
        timeout_s: float,
        transport: str = "auto",
        feedback: ErrorFeedback | None = None,
        overlap: bool = False,
    ) -> None:
        """Open one connection to every shard of the job.

        Args:
            session: The coordinator's reply to the registration.
            layout: The layout of the model.
            codec: The codec of pushes.
            timeout_s: The time within which an awaited message must arrive, in seconds.
            transport: A name of `downpour.protos.transports`, or `auto` for the first that works.
            feedback: The residuals of a lossy codec (default: zeros).
            overlap: Whether weights may still be read while the next request is in flight.

        Raises:
            DownpourError: The transport cannot reach a shard.
        """
        self._session, self._layout, self._codec, self._keep = session, layout, codec, overlap
        self._slices = layout.cut(len(session.shards))
        self._feedback = feedback or ErrorFeedback(codec, self._slices, (session.worker, session.incarnation))
        self._loop = Loop(background=overlap)
        self._links: list[Transport] = []
        self.transports: list[str] = []
        try:
            for shard, part in zip(session.shards, self._slices, strict=True):
                name, link = connect(transport, self._route(shard, part, timeout_s))
                self.transports.append(name)
                self._links.append(link)
        except BaseException:
            self.close()
            raise
        self._generations = [shard.generation for shard in session.shards]
        self._versions = [0] * len(self._links)
        self._vectors: list[np.ndarray | None] = [None] * len(self._links)  # weights of these versions
        self._seq, self.pushed = 0, False
        self._coverages: dict[bytes, list[Coverage]] = {}  # of every shard, by the bitmap of a push
        several = len(self._links) > 1
        memory = [pages(4 * layout.size if several else 0) for _ in range(1 + overlap)]
        self._flats = [np.frombuffer(one, np.float32) for one in memory]

    @property
    def any_thread(self) -> bool:
        """Whether any thread may use this client, one at a time."""
        return all(link.any_thread for link in self._links)

    def initialise(self, flat: np.ndarray) -> None:
        """Send the initial weights `float32[n + m]` to every shard."""
        requests = [pb.Request(kind=pb.INIT) for _ in self._slices]
        payloads = [[_bytes(flat[part.start : part.stop]), *self._state(flat, part)] for part in self._slices]
        self._exchange(requests, payloads)

    def assign(self, flat: np.ndarray, slot: str = "", partial: bool = False) -> None:
        """Replace the weights, or a slot of the optimizer, on every shard of a script's job.

        Args:
            flat: The values `float32[n + m]`, of which the last m are ignored for a slot.
            slot: The name of the slot; empty for the weights.
            partial: Whether elements that are NaN stay as they are on the shards.
        """
        worker = self._session.worker
        requests = [pb.Request(kind=pb.ASSIGN, slot=slot, partial=partial, worker=worker) for _ in self._slices]
        payloads = [[_bytes(flat[part.start : part.stop]), *self._state(flat, part)] for part in self._slices]
        self._exchange(requests, payloads)

    def pull(self, pin: int = 0) -> Pulled:
        """Return the committed weights, or those pinned under a number.

        Raises:
            DownpourError: A shard refuses the request.
            Unreachable: A shard does not reply.
            DeadlineExceeded: A shard does not reply in time.
        """
        requests = [pb.Request(kind=pb.PULL, pin=pin, worker=self._session.worker) for _ in self._slices]
        if not pin:
            for index, request in enumerate(requests):
                self._add_held_version(index, request)
        return self._assembled(self._exchange(requests, [[] for _ in requests]), pinned=pin > 0)

    def pull_slot(self, slot: str) -> np.ndarray:
        """Return a slot of the optimizer, `float32[n + m]` with m zeros; valid until the next request is sent."""
        requests = [pb.Request(kind=pb.PULL, slot=slot) for _ in self._slices]
        return self._assembled(self._exchange(requests, [[] for _ in requests]), pinned=True).flat

    def push_pull(self, gradient: np.ndarray | ChunkedVector, info: PushInfo) -> Pulled:
        """Push a gradient and return the new weights; see `push` and `pulled`.

        The weights of a shard are those right after it counted the push, or after its consistency mode let the worker
        proceed.

        Raises:
            DownpourError: A shard refuses the push.
            Unreachable: A shard does not reply.
            DeadlineExceeded: A shard does not reply in time.
        """
        self.push(gradient, info)
        return self.pulled()

    def push(self, gradient: np.ndarray | ChunkedVector, info: PushInfo, pull: bool = True) -> None:
        """Send a gradient to all shards. It must not change until `pulled` has returned.

        Args:
            gradient: The vector `float32[n + m]`, of which the last m are differences of the state; without the
                elements of tensors that `info` does not name. If it is not finite according to `info`, only the headers
                are sent.
            info: The description of the samples and weights that it was computed from.
            pull: Whether the replies contain weights.
        """
        self._seq += 1
        requests, payloads = [], list[list[Buffer]]()
        for index, part in enumerate(self._slices):
            requests.append(self._header(index, info, pull))
            if not info.finite:
                payloads.append([])
            elif info.tensors:
                payloads.append(self._covered(index, gradient, info.tensors))
            else:
                payloads.append([*self._trained(index, gradient), *self._state(gradient, part)])
        for link, request, parts in zip(self._links, requests, payloads, strict=True):
            link.send(request, *parts)

    def pulled(self) -> Pulled:
        """Wait for the replies to a push.

        Raises:
            DownpourError: A shard refuses the push.
            Unreachable: A shard does not reply.
            DeadlineExceeded: A shard does not reply in time.
        """
        frames = [link.receive() for link in self._links]
        self.pushed = True
        return self._assembled(frames)

    def watch(self, now: float) -> None:
        """Cancel streams whose replies are overdue at `now` (monotonic); thread-safe."""
        for link in self._links:
            link.watch(now)

    def end(self, error: DownpourError) -> None:
        """Stop waiting for the shards' replies, because the session has ended with `error`; thread-safe."""
        for link in self._links:
            link.end(error)

    def close(self) -> None:
        """Close the connections to all shards, and the event loop that they share."""
        for link in self._links:
            link.close()
        self._loop.close()

    def _route(self, shard: pb.ShardAddress, part: Slice, timeout_s: float) -> Route:
        pushed_bytes = codec_named(self._codec).size_bytes(part.trained) + 4 * part.state
        session, buffers = self._session.session, 1 + self._keep
        return Route(shard, session, max(4 * part.size, pushed_bytes), 4 * part.size, timeout_s, self._loop, buffers)

    def _header(self, index: int, info: PushInfo, pull: bool) -> pb.Request:
        request = info.to_request(index)
        request.worker, request.incarnation = self._session.worker, self._session.incarnation
        request.seq, request.generation = self._seq, self._generations[index]
        request.codec, request.no_pull, request.retain_previous = self._codec, not pull, self._keep
        self._add_held_version(index, request)
        return request

    def _add_held_version(self, index: int, request: pb.Request) -> None:
        """Add the version that the worker holds, so that the shard does not resend unchanged weights."""
        if self._links[index].resends_weights and self._vectors[index] is not None:
            request.have_version, request.generation = self._versions[index], self._generations[index]

    def _exchange(self, requests: Sequence[pb.Request], payloads: Sequence[Sequence[Buffer]]) -> list[Frame[pb.Reply]]:
        """Send a request other than a push to every shard, and return the replies."""
        for link, request, parts in zip(self._links, requests, payloads, strict=True):
            request.retain_previous = self._keep
            link.send(request, *parts)
        return [link.receive() for link in self._links]

    def _trained(self, index: int, gradient: np.ndarray | ChunkedVector) -> list[Buffer]:
        part = self._slices[index]
        if isinstance(gradient, ChunkedVector) and self._codec == "float32":
            return [_bytes(view) for view in gradient.within(part.start, part.stop)]
        return [self._feedback.encode(index, gradient[part.start : part.stop])]

    def _covered(self, index: int, gradient: np.ndarray | ChunkedVector, bitmap: bytes) -> list[Buffer]:
        """Return the payload for one shard of a push that covers some tensors."""
        coverages = self._coverages.get(bitmap)
        if coverages is None:
            coverages = [Coverage.of(bitmap, self._layout, part) for part in self._slices]
            self._coverages[bitmap] = coverages
        edges = [0, *accumulate(coverage.size for coverage in coverages)]
        payload = self._feedback.encode(index, gradient[edges[index] : edges[index + 1]], coverages[index])
        return [payload, *([_bytes(gradient[edges[-1] : len(gradient)])] if self._slices[index].state else [])]

    def _state(self, flat: np.ndarray | ChunkedVector, part: Slice) -> list[Buffer]:
        return [_bytes(flat[self._layout.trained :])] if part.state else []

    def _assembled(self, frames: list[Frame[pb.Reply]], pinned: bool = False) -> Pulled:
        replies = tuple(frame.header for frame in frames)
        vectors = [self._vector(index, frame, pinned) for index, frame in enumerate(frames)]
        versions = tuple(reply.version for reply in replies)
        if len(vectors) == 1:
            return Pulled(vectors[0], versions, replies)
        flat = self._flats.pop(0)
        self._flats.append(flat)
        for part, vector in zip(self._slices, vectors, strict=True):
            if len(vector):
                flat[part.start : part.stop] = vector[: part.trained]
            if len(vector) and part.state:
                flat[self._layout.trained :] = vector[part.trained :]
        return Pulled(flat, versions, replies)

    def _vector(self, index: int, frame: Frame[pb.Reply], pinned: bool) -> np.ndarray:
        reply, held = frame.header, self._vectors[index]
        if reply.not_modified and held is not None:
            return held
        vector = np.frombuffer(frame.payload, np.float32)
        if len(vector) and not pinned:
            self._versions[index] = reply.version
        self._vectors[index] = vector if len(vector) and not pinned else None
        return vector


def _bytes(vector: np.ndarray) -> memoryview:
    return np.ascontiguousarray(vector, np.float32).data.cast("B")
