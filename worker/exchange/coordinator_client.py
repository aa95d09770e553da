"""The worker's calls to the coordinator, each with a deadline and the errors of `downpour.protos.errors`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos import parameter_server_pb2_grpc as rpc
from downpour.protos.channel import difference_in_tls, open_channel
from downpour.protos.errors import DeadlineExceeded, Unreachable, Unsupported
from downpour.protos.protocol import PROTOCOL
from downpour.protos.settings import reachable
from downpour.protos.status_codes import error_of, is_unanswered
from downpour.protos.system import clock, threads
from downpour.worker.exchange.outage import RESUMABLE, Outage

RETRY_FIRST_S, RETRY_MOST_S = 0.1, 2.0
RESOLVE_AGAIN_S = 5.0
UPLOAD_CHUNK_BYTES = 1 << 20


class CoordinatorClient:
    """Calls to the coordinator at one address."""

    def __init__(self, address: str, call_timeout_s: float) -> None:
        """Prepare a connection, which the first call opens.

        Args:
            address: The address of the coordinator, `HOST:PORT`.
            call_timeout_s: The deadline of a call, and the time for which calls to an unreachable server are retried
                unless `tolerate_outage` sets another one.
        """
        self.address, self._outage = address, Outage(address)
        self._timeout_s, self._has_answered = call_timeout_s, False
        self._channel = open_channel(address)
        self._stub = rpc.CoordinatorStub(self._channel)

    @property
    def away(self) -> bool:
        """Whether the server did not reply to the last call."""
        return self._outage.away

    def tolerate_outage(self, limit_s: float, advice: str = RESUMABLE) -> None:
        """Retry calls to an unreachable server for `limit_s`, regardless of their own deadlines; 0 means no retry.

        Args:
            limit_s: The time for which the server may be unreachable, in seconds.
            advice: The end of the error message once that time is over.
        """
        self._outage.tolerate(limit_s, advice)

    def describe(self, timeout_s: float) -> pb.JobDescription:
        """Return the description of the job; wait for a server that is starting and a host name that is not known yet.

        A channel resolves an unknown name less and less often, down to every two minutes; a new one does so at once.

        Raises:
            DownpourError: The server refuses the call, differs in TLS, or has not answered within `timeout_s`.
        """
        deadline = clock.monotonic() + timeout_s
        while True:
            left_s = deadline - clock.monotonic()
            try:
                request = pb.DescribeRequest(protocol=PROTOCOL)
                return self._call(self._stub.Describe, request, max(0.01, min(left_s, RESOLVE_AGAIN_S)))
            except (Unreachable, DeadlineExceeded) as error:
                if left_s <= RESOLVE_AGAIN_S:
                    text = str(error).rstrip(".")
                    raise type(error)(f"{text}. Start the server at this address first, or correct it.") from None
            self._channel.close()
            self._channel = open_channel(self.address)
            self._stub = rpc.CoordinatorStub(self._channel)

    def register(self, request: pb.RegisterRequest) -> pb.RegisterReply:
        """Open a session; the coordinator waits for all shards first.

        A shard that listens on every address of its machine is where this worker has found the coordinator.
        """
        reply: pb.RegisterReply = self._call(self._stub.Register, request, self._timeout_s + 60.0)
        for shard in reply.shards:
            shard.address = reachable(shard.address, self.address.rpartition(":")[0])
        return reply

    def ready(
        self, session: int, initialised: bool, warm: bool, facts: Mapping[str, str] | None = None
    ) -> pb.ReadyReply:
        """Wait for the request to initialise, or for the start, as a long poll; `facts` describe the gradient."""
        request = pb.ReadyRequest(session=session, initialised=initialised, compiled=warm, environment=facts)
        return self._call(self._stub.Ready, request)

    def heartbeat(self, session: int) -> pb.HeartbeatReply:
        """Renew the session, which expires otherwise; the reply states whether the job is ending."""
        return self._call(self._stub.Heartbeat, pb.HeartbeatRequest(session=session))

    def lease(self, session: int, epoch: int | None = None, wanted: pb.LeaseRequest | None = None) -> pb.Task:
        """Wait for the next task, as a long poll.

        Args:
            session: The session of the worker.
            epoch: The epoch of `fit` that a script's worker trains in; None for other workers.
            wanted: What a script's worker asks for: whether ahead, and the size; None for other workers.
        """
        request = pb.LeaseRequest(session=session, wait_s=5.0, epoch=epoch)
        request.MergeFrom(wanted or pb.LeaseRequest())
        return self._call(self._stub.Lease, request)

    def report_use(self, session: int, epoch: int | None, use: pb.LeaseUse) -> None:
        """Report samples that a script's worker has used without a push."""
        self._call(self._stub.Lease, pb.LeaseRequest(session=session, epoch=epoch, used=[use]))

    def report(self, request: pb.ReportRequest) -> None:
        """Report the result of an evaluation."""
        self._call(self._stub.Report, request)

    def upload(self, session: int, path: Path) -> None:
        """Upload a model file, with its size and SHA-256 digest first; repeat that if the connection breaks."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
        size_bytes = path.stat().st_size

        def chunks() -> Iterator[pb.UploadChunk]:
            yield pb.UploadChunk(session=session, size_bytes=size_bytes, sha256=digest)
            with path.open("rb") as file:
                while data := file.read(UPLOAD_CHUNK_BYTES):
                    yield pb.UploadChunk(data=data)

        def send(request: None, timeout: float) -> pb.UploadReply:
            reply: pb.UploadReply = self._stub.Upload(chunks(), timeout=timeout)
            return reply

        self._call(send, None, self._timeout_s + size_bytes / 1e6)

    def meet(self, request: pb.BarrierRequest) -> pb.BarrierReply:
        """Wait, as a long poll, for the other workers of a script and for the decision of worker 0."""
        return self._call(self._stub.Barrier, request)

    def set_rates(self, request: pb.SetLearningRatesRequest) -> None:
        """Set the learning rate of the next updates of a script's job."""
        self._call(self._stub.SetLearningRates, request)

    def leave(self, request: pb.LeaveRequest) -> None:
        """End this worker's session with the coordinator."""
        if self._outage.away:
            raise Unreachable(f"the server at {self.address} does not answer")
        self._call(self._stub.Leave, request, 5.0)

    def stop(self, reason: str, complete: bool = False) -> None:
        """Request the end of the job once its workers have left; `complete` if the script has ended by itself."""
        self._call(self._stub.Stop, pb.StopRequest(now=False, reason=reason, complete=complete))

    def status(self) -> pb.Progress:
        """Return the progress of the job."""
        progress: pb.Progress = self._call(self._stub.Status, pb.StatusRequest())
        return progress

    def close(self) -> None:
        """Close the connection to the coordinator; the session remains open until it expires."""
        self._channel.close()

    def _call(self, method: Callable[..., Any], request: Any, timeout_s: float | None = None) -> Any:
        """Call the server; repeat the call until the deadline, or for as long as an outage is tolerated.

        Raises:
            DownpourError: The server refuses the call.
            Unreachable: The server does not answer.
            Unsupported: The server has not answered yet, and differs in TLS.
        """
        timeout_s = timeout_s or self._timeout_s
        deadline = clock.monotonic() + timeout_s
        pause_s = RETRY_FIRST_S
        while True:
            try:
                reply = method(request, timeout=max(0.01, deadline - clock.monotonic()))
                self._outage.answered()
                self._has_answered = True
                return reply
            except grpc.RpcError as failure:
                error = error_of(failure, self.address)
                if not is_unanswered(failure):
                    self._outage.answered()
                    raise error from failure
                if not self._has_answered and (difference := difference_in_tls(self.address)):
                    raise Unsupported(difference) from failure
                if self._outage.missed():
                    deadline = clock.monotonic() + timeout_s
                elif clock.monotonic() + pause_s > deadline:
                    raise error from failure
            threads.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_MOST_S)
