"""One worker's session with a job: registration, readiness, heartbeat, connections to the shards, rejoining, leaving.

A session identifies a worker to the servers. The coordinator opens it (`register`), heartbeats keep it alive, and the
shards refuse requests of a session that has ended or been fenced. The worker then opens another one (`rejoin`) and
continues to train; gradients that it had not pushed are lost.

    session = Session(control, job, registration)
    session.register()
    session.await_start(lambda client: client.initialise(weights))
    ...  # session.client.pull(), session.client.push_pull(...), session.check()
    session.leave()
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import DeadlineExceeded, DownpourError, Fenced, FutureVersion, UnknownWorker, Unreachable
from downpour.protos.layout import Layout
from downpour.protos.logs import log
from downpour.protos.protocol import PROTOCOL
from downpour.protos.system import threads
from downpour.worker.exchange.client import Client
from downpour.worker.exchange.coordinator_client import CoordinatorClient
from downpour.worker.exchange.error_feedback import ErrorFeedback
from downpour.worker.exchange.heartbeat import Heartbeat
from downpour.worker.exchange.outage import CoordinatorGone
from downpour.worker.exchange.timing import TimeSpent

SESSION_LOST = (UnknownWorker, Fenced, FutureVersion)  # errors after which a worker registers again
# Errors of a server that has died or is suspended, and may be back: a worker that survives outages registers again.
SILENT = (Unreachable, DeadlineExceeded)
T = TypeVar("T")


@dataclass(frozen=True)
class SessionSettings:
    """The settings of a session: its heartbeats, its deadlines and the transport of its payloads.

    Attributes:
        transport: A name of `downpour.protos.transports`, or `auto`; empty for the job's.
        timeout_s: The time within which an awaited message must arrive, in seconds.
        overlap: Whether weights may still be read while the next request is in flight.
        heartbeat_s: The interval between two heartbeats, in seconds; None for the job's.
        fixed_rank: Whether a worker that registers again keeps its number and fences any other worker that has it,
            instead of taking another number.
        survives_outage: Whether to register again if a shard does not reply, because its server may be restarted.
    """

    transport: str = ""
    timeout_s: float = 30.0
    overlap: bool = False
    heartbeat_s: float | None = None
    fixed_rank: bool = False
    survives_outage: bool = False


class Session:
    """One worker's membership of a job, which outlasts the loss of single sessions.

    Attributes:
        reply: The coordinator's reply to the last registration.
    """

    def __init__(
        self,
        control: CoordinatorClient,
        job: pb.JobDescription,
        registration: pb.RegisterRequest,
        settings: SessionSettings | None = None,
        run: Callable[[Callable[[], Any]], Any] | None = None,
    ) -> None:
        """Build a session that is not registered yet.

        Args:
            control: The client of the coordinator.
            job: The description of the job.
            registration: The request to register, with the worker's layout, data and preferences; this class fills in
                protocol, job, process and host.
            settings: The settings of the session.
            run: A function that runs another one in the thread that uses the client (default: in the calling thread).
        """
        self._control, self._job = control, job
        self._settings = settings or SessionSettings()
        self._registration = pb.RegisterRequest()
        self._registration.CopyFrom(registration)
        self._layout = Layout.from_proto(registration.layout)
        self._run = run or (lambda call: call())
        self.reply = pb.RegisterReply()
        self._client: Client | None = None
        self._heartbeat: Heartbeat | None = None
        self._feedback: ErrorFeedback | None = None
        self._outage_since_push = False

    # ------------------------------------------------------------------ state

    @property
    def number(self) -> int:
        """The session's number, which authenticates requests; 0 before registration."""
        return self.reply.session

    @property
    def worker(self) -> int:
        """The worker's number in its job."""
        return self.reply.worker

    @property
    def client(self) -> Client:
        """The connections to all shards."""
        assert self._client is not None, "a session must be registered before its client is used"
        return self._client

    @property
    def any_thread(self) -> bool:
        """Whether any thread may use the client, one at a time."""
        return self._client is not None and self._client.any_thread

    @property
    def lost(self) -> DownpourError | None:
        """The error with which the coordinator ended the session; None while it lasts."""
        return self._heartbeat.lost if self._heartbeat is not None else None

    @property
    def draining(self) -> bool:
        """Whether the worker must stop after the current batch."""
        return self._heartbeat is not None and self._heartbeat.drain

    @property
    def ending(self) -> bool:
        """Whether the end of the job is awaited, so that long work should be abandoned."""
        return self._heartbeat is not None and self._heartbeat.ending

    @property
    def over(self) -> str:
        """The phase in which the job is over; empty until then."""
        return self._heartbeat.over if self._heartbeat is not None else ""

    @property
    def deadline(self) -> float:
        """The monotonic time by which evaluations must end; infinite unless the end of the job is awaited."""
        return self._heartbeat.deadline if self._heartbeat is not None else math.inf

    def check(self) -> None:
        """Return if the session lasts.

        Raises:
            DownpourError: The session has ended; the error with which the coordinator ended it.
        """
        if self._heartbeat is not None and self._heartbeat.lost is not None:
            raise self._heartbeat.lost

    # ------------------------------------------------------------------ registration

    def register(self) -> None:
        """Open the session; unless its `fit` is over, also connect to all shards and start the heartbeat.

        Raises:
            DownpourError: The coordinator or a shard refuses the worker, or does not reply.
        """
        request = self._registration
        request.protocol, request.job = PROTOCOL, self._job.job
        request.host, request.pid = threads.process()
        self.reply = self._control.register(request)
        if self.reply.fit_completed:
            return
        self._client = client = self._run(self.open_client)
        period_s = self._settings.heartbeat_s or self._job.heartbeat_s
        self._heartbeat = Heartbeat(self._control, self.number, period_s, client.watch, client.end)

    def open_client(self, transport: str = "") -> Client:
        """Return new connections of this session to all shards, over the transport of the settings by default.

        The residuals of a lossy codec outlive sessions and are shared.
        """
        if self._feedback is None:
            slices = self._layout.cut(len(self.reply.shards))
            self._feedback = ErrorFeedback(self._job.codec, slices, (self._job.seed, self.worker))
        settings = self._settings
        transport = transport or settings.transport or self._job.transport
        return Client(
            self.reply, self._layout, self._job.codec, settings.timeout_s, transport, self._feedback, settings.overlap
        )

    def await_start(
        self,
        initialise: Callable[[Client], None],
        facts: Mapping[str, str] | None = None,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Wait until training may start, and initialise the weights if the coordinator asks this worker to.

        Args:
            initialise: A function that sends the initial weights with the given client.
            facts: The environment facts that the bits of the compiled gradient depend on.
            waiting: A factory of the context in which each waiting call is made.
        """
        initialised = False
        while True:
            with waiting():
                reply = self._control.ready(self.number, initialised, warm=True, facts=facts)
            if reply.initialise:
                self._run(lambda: initialise(self.client))
                initialised = True
            if reply.start or reply.end:
                return

    def rejoin(self, error: DownpourError) -> None:
        """Register again after an error has ended the session.

        Raises:
            DownpourError: `error` itself, if another session would not help: the coordinator is unreachable, or a shard
                failed to reply twice without a push in between (its address may be wrong); or an error of `register`.
        """
        if isinstance(error, SILENT):
            if self._client is not None and self._client.pushed:
                self._outage_since_push = False
            if not self._settings.survives_outage or self._outage_since_push or isinstance(error, CoordinatorGone):
                raise error
            self._outage_since_push = True
        elif not isinstance(error, SESSION_LOST):
            raise error
        self.renew(error)

    def renew(self, error: DownpourError, in_fit: bool = False, has_trained: bool = False) -> None:
        """Register again in any case.

        Args:
            error: The error that has ended the session.
            in_fit: Whether the worker of a script is still within the call of `fit` that it had joined.
            has_trained: Whether it has begun an epoch of that call.

        Raises:
            DownpourError: The coordinator or a shard refuses the worker, or does not reply.
        """
        log(f"session lost, registering again: {error}")
        self.disconnect()
        self._registration.in_fit, self._registration.has_trained = in_fit, has_trained
        if not self._settings.fixed_rank:
            self._registration.rejoin, self._registration.worker = True, self.worker
        self.register()

    # ------------------------------------------------------------------ the end

    def disconnect(self) -> None:
        """Stop the heartbeat and close the connections to the shards; the coordinator is not notified."""
        if self._heartbeat is not None:
            self._heartbeat.stop()
        if self._client is not None:
            self._run(self._client.close)

    def leave(self, failure: str = "", spent: TimeSpent | None = None, error_type: str = "") -> None:
        """Disconnect and notify the coordinator, unless it has ended the session itself."""
        self.disconnect()
        if not isinstance(self.lost, UnknownWorker):
            self.notify_leaving(failure, spent, error_type)

    def notify_leaving(self, failure: str = "", spent: TimeSpent | None = None, error_type: str = "") -> None:
        """Notify the coordinator that the worker leaves; an unreachable coordinator will detect it by itself.

        Args:
            failure: The reason why the worker failed; empty if it did not.
            spent: The times that the worker spent in steps and exchanges.
            error_type: The class of the error, `MODULE:NAME`; empty if the worker did not fail.
        """
        if not self.number or self._control.away:
            return
        spent = spent or TimeSpent()
        request = pb.LeaveRequest(
            session=self.number,
            failed=bool(failure),
            reason=failure,
            step_s=spent.step_s,
            exchange_s=spent.exchange_s,
            error_type=error_type,
        )
        try:
            self._control.leave(request)
        except DownpourError as error:
            log(f"the coordinator was not notified that this worker leaves: {error}")
