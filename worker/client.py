"""Pulls and pushes whole flat vectors: cuts them into shards, numbers the pushes, keeps the versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from protos import parameter_server_pb2 as pb
from protos.codec import codec_named
from protos.frame import Frame
from protos.layout import Layout, Slice
from worker.stream import ShardStream


@dataclass(frozen=True)
class Samples:
    """What a gradient was computed from.

    Attributes:
        count: Samples that it averages over.
        lease: Number of the lease that they belong to; 0 if none.
        start: With `stop`, positions in the epoch's permutation.
    """

    count: int = 1
    lease: int = 0
    epoch: int = 0
    start: int = 0
    stop: int = 0
    loss: float = 0.0
    correct: int = 0


@dataclass(frozen=True)
class Pulled:
    """Weights and what they are.

    Attributes:
        flat: `float32[n + m]`, not to be written to; valid until the next call.
        versions: Of every shard.
        replies: Headers of every shard's reply.
    """

    flat: np.ndarray
    versions: tuple[int, ...]
    replies: tuple[pb.Reply, ...]


class Client:
    """One worker's streams to all shards."""

    def __init__(self, session: pb.Session, layout: Layout, codec: str, timeout_s: float) -> None:
        """Opens a stream to every shard.

        Args:
            session: As the coordinator opened it.
            layout: Of the model.
            codec: Of pushes.
            timeout_s: How long an awaited message may take.
        """
        self._session, self._layout, self._codec = session, layout, codec
        self._slices = layout.cut(len(session.shards))
        self._streams = [
            ShardStream(shard.address, session.session, 4 * part.size, timeout_s)
            for shard, part in zip(session.shards, self._slices, strict=True)
        ]
        self._generations = [shard.generation for shard in session.shards]
        self._versions = [0] * len(self._streams)
        self._seq = 0
        self._flat = np.empty(layout.size, np.float32)

    def initialise(self, flat: np.ndarray) -> None:
        """Sends the initial weights `float32[n + m]` to every shard."""
        requests = [pb.Request(kind=pb.INIT) for _ in self._slices]
        payloads = [self._of_slice(flat, part).data.cast("B") for part in self._slices]
        self._exchange(requests, payloads)

    def pull(self, pin: int = 0) -> Pulled:
        """The committed weights, or those pinned under a number.

        Raises:
            DownpourError: As a shard said, or Unreachable, or DeadlineExceeded.
        """
        requests = [pb.Request(kind=pb.PULL, pin=pin) for _ in self._slices]
        frames = self._exchange(requests, [b""] * len(requests))
        return self._pulled(frames, pinned=pin > 0)

    def push_pull(
        self, gradient: np.ndarray, norm: float, samples: Samples, nonfinite: bool = False
    ) -> Pulled:
        """Pushes a gradient `float32[n + m]` (the last m: differences of the state) and pulls.

        The weights of one shard come from the turn in which the push was counted, or in which its gate
        opened.

        Args:
            gradient: Computed from the weights pulled last.
            norm: Of the whole gradient.
            samples: That it comes from.
            nonfinite: It holds NaN or Inf; then only its header is sent.

        Raises:
            DownpourError: As a shard said, or Unreachable, or DeadlineExceeded.
        """
        self._seq += 1
        requests, payloads = [], []
        for index, part in enumerate(self._slices):
            requests.append(self._header(index, norm, samples, nonfinite))
            payloads.append(b"" if nonfinite else self._encode(gradient, part))
        return self._pulled(self._exchange(requests, payloads))

    def watch(self, now: float) -> None:
        """Breaks off streams whose replies are overdue; to be called from another thread."""
        for stream in self._streams:
            stream.watch(now)

    def close(self) -> None:
        """Ends all streams."""
        for stream in self._streams:
            stream.close()

    def _header(self, index: int, norm: float, samples: Samples, nonfinite: bool) -> pb.Request:
        return pb.Request(
            kind=pb.PUSH_PULL,
            worker=self._session.worker,
            incarnation=self._session.incarnation,
            seq=self._seq,
            base_version=self._versions[index],
            generation=self._generations[index],
            codec=self._codec,
            norm=norm,
            nonfinite=nonfinite,
            samples=samples.count,
            loss=samples.loss,
            correct=samples.correct,
            lease=samples.lease if index == 0 else 0,
            epoch=samples.epoch,
            start=samples.start,
            stop=samples.stop,
        )

    def _exchange(
        self, requests: Sequence[pb.Request], payloads: Sequence[bytes | memoryview]
    ) -> list[Frame[pb.Reply]]:
        for stream, request, payload in zip(self._streams, requests, payloads, strict=True):
            stream.send(request, payload)
        return [stream.receive() for stream in self._streams]

    def _encode(self, gradient: np.ndarray, part: Slice) -> bytes | memoryview:
        codec = codec_named(self._codec)
        if self._codec == "float32":
            return self._of_slice(gradient, part).data.cast("B")
        trained = codec.encode(gradient[part.start : part.stop])
        return bytes(trained) + gradient[self._layout.trained :].tobytes() if part.state else bytes(trained)

    def _of_slice(self, flat: np.ndarray, part: Slice) -> np.ndarray:
        trained = flat[part.start : part.stop]
        if not part.state or part.stop == self._layout.trained:
            return flat[part.start : part.stop + part.state]
        return np.concatenate((trained, flat[self._layout.trained :]))

    def _pulled(self, frames: list[Frame[pb.Reply]], pinned: bool = False) -> Pulled:
        replies = tuple(frame.header for frame in frames)
        if not pinned:
            self._versions = [reply.version for reply in replies]
        if len(frames) == 1:
            flat = np.frombuffer(frames[0].payload, np.float32)
            return Pulled(flat, (replies[0].version,), replies)
        n = self._layout.trained
        for part, frame in zip(self._slices, frames, strict=True):
            vector = np.frombuffer(frame.payload, np.float32)
            self._flat[part.start : part.stop] = vector[: part.trained]
            if part.state:
                self._flat[n:] = vector[part.trained :]
        return Pulled(self._flat, tuple(reply.version for reply in replies), replies)
