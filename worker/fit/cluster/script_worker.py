"""A script's worker in its cluster: one session for each call of `fit`, and the barriers with the other workers."""

from __future__ import annotations

import functools
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import TypeVar

import numpy as np

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.barrier import is_answered
from downpour.protos.chunked_vector import ChunkedVector
from downpour.protos.errors import DeadlineExceeded, DownpourError, UnknownWorker, Unreachable, Unsupported
from downpour.protos.logs import log
from downpour.protos.sentences.sentence import counted
from downpour.protos.system.progress import waiting_for
from downpour.worker.exchange.client import Client, Pulled
from downpour.worker.exchange.coordinator_client import CoordinatorClient
from downpour.worker.exchange.outage import CoordinatorGone
from downpour.worker.exchange.push_info import PushInfo
from downpour.worker.exchange.session import SESSION_LOST, SILENT, Session, SessionSettings
from downpour.worker.exchange.timing import TimeSpent
from downpour.worker.fit.cluster.completed_fit import CompletedFit, read_completed
from downpour.worker.fit.cluster.fit_failure import error_type_of, exception_of, text_of
from downpour.worker.fit.cluster.past_call import PastCall
from downpour.worker.fit.cluster.stage import Stage, UpdateCounts
from downpour.worker.plan.push_plan import PushPlan
from downpour.worker.plan.staleness_advice import staleness_advice

LEADER = 0
RETRY_S = 0.2
LONGEST_BARRIER_S = 7200.0  # twice what the coordinator allows a worker that others wait for
UNTRAINED = (
    "worker 0 must not be started again after call {} of fit, which an error has ended: the weights of a call that was "
    "not completed are not kept, and the others would continue with untrained ones. Run the script again."
)
LOST = (*SESSION_LOST, *SILENT)  # errors after which a worker registers again and continues in the same call of `fit`
T = TypeVar("T")


class CallIsComplete(Exception):
    """The other workers have completed the call of `fit` that this worker was about to join."""


class ScriptWorker:
    """One worker of a script.

    Attributes:
        rank: The rank, from 0.
        size: The number of workers that the job was started with.
        fit_completed: Whether the other workers have completed the current call of `fit` without this one.
        spent: The time of the steps and exchanges of the current call of `fit`.
        stages: The number of calls of `fit` so far.
        versions: The versions, on every shard, of the weights that were pulled last.
        plan: The intervals and the content of pushes.
        counts: The updates of each optimizer, as the last reply that states them has it.
        decisions: The decisions of worker 0 on the epochs that had ended when this worker joined the current call.
        joined_late: Whether training in the current call had begun when this worker joined it.
        epoch_begun: Whether the epoch after these had begun by then.
        epoch_ending: Whether the last of these epochs was at its end by then: worker 0 calls its callbacks for it.
        initial_epoch: The number of the first epoch of the current call on all workers.
        epoch: The epoch of the current call that this worker trains in; None if it is not known.
        outdated: Whether the weights that were pulled last are those of a session that has ended, so that gradients
            of them must not be pushed: the servers may have returned to an earlier state.
    """

    def __init__(
        self, control: CoordinatorClient, job: pb.JobDescription, rank: int, call_timeout_s: float, completed: str = ""
    ) -> None:
        """Build a worker that has not joined a call of `fit` yet.

        Args:
            control: The client of the coordinator.
            job: The description of the job.
            rank: The rank of this worker.
            call_timeout_s: The deadline of a call, in seconds.
            completed: The folder with the weights of the calls of `fit` that are complete; empty if there is none.
        """
        self._completed = completed
        self.rank, self.size = rank, job.workers
        self.fit_completed, self.decisions, self.joined_late = False, list[pb.Decision](), False
        self.epoch_begun = self.epoch_ending = False
        self._past: PastCall | None = None  # if the others have completed the current call while this worker was away
        self._control, self._job, self._timeout_s = control, job, call_timeout_s
        self.stages = self.initial_epoch = 0
        self.versions: tuple[int, ...] = ()
        self.epoch: int | None = None
        self.outdated = False
        self._on_return: Callable[[], None] = lambda: None
        self._in_call = False  # this worker has joined the current call of `fit`
        self._renewal = threading.Lock()
        self.plan, self.counts = PushPlan.of(job), UpdateCounts((), ())
        self._sent: tuple[int, DownpourError | None] = (0, None)  # session and error of a push in flight
        self.spent = TimeSpent()
        self._stage: Stage | None = None
        self._session: Session | None = None  # of the current call of `fit`
        self._advised = False
        self._refusal: Unsupported | None = None  # of a worker that must not go on
        self._failed_elsewhere = False  # another worker's error has ended the current call of `fit`
        # TensorFlow calls from any of its threads, but gRPC's event loop must be used by a single one.
        self._thread = ThreadPoolExecutor(1, "shards")
        self._calling = threading.Lock()

    @property
    def address(self) -> str:
        """The address of the coordinator, `HOST:PORT`."""
        return self._control.address

    def progress(self) -> pb.Progress:
        """Return the progress of the job.

        Raises:
            DownpourError: The coordinator does not answer.
        """
        return self._control.status()

    @property
    def is_leader(self) -> bool:
        """Whether this is worker 0."""
        return self.rank == LEADER

    @property
    def in_fit(self) -> bool:
        """Whether a call of `fit` has joined the other workers and has not ended."""
        return self._session is not None

    @property
    def draining(self) -> bool:
        """Whether training must stop after the current batch."""
        return self._session is not None and self._session.draining

    @property
    def seed(self) -> int:
        """The seed of the job."""
        return self._job.seed

    @property
    def spreads_validation(self) -> bool:
        """Whether each of several workers evaluates a part of the validation data."""
        return self._job.spread_validation and self.size > 1

    @property
    def nonfinite_limit(self) -> int:
        """The number of gradients in a row with NaN or Inf after which training has diverged."""
        return self._job.nonfinite_limit

    @property
    def lease_batches(self) -> int:
        """The number of batches in a lease; 0 if it follows from the data and the number of workers."""
        return self._job.lease_batches

    def advise(self, updates: int | None, optimizers: int) -> None:
        """Print advice on a short or adversarial training, as worker 0, once in a script.

        Args:
            updates: The number of updates that one process would make; None if it is not known.
            optimizers: The number of optimizers of the model.
        """
        advice = staleness_advice(self._job.mode, self.size, updates, optimizers) if self.is_leader else ""
        if advice and not self._advised:
            self._advised = True
            print(f"downpour: {advice}", file=sys.stderr, flush=True)

    @property
    def clip_norm(self) -> float:
        """The largest norm of a gradient over all shards; 0 if gradients are not clipped."""
        return self._job.clip_norm

    @property
    def completed(self) -> CompletedFit | None:
        """The result of the current call of `fit`, which was complete before this worker came; None if it is lost."""
        return read_completed(self._completed, self.stages)

    @property
    def last(self) -> pb.Decision:
        """The decision at the end of the current call of `fit`, which was complete before this worker came."""
        return self._registered.reply.last

    # ------------------------------------------------------------------ a call of fit

    def enter(self, stage: Stage, on_return: Callable[[], None] = lambda: None) -> np.ndarray | None:
        """Join the other workers in the next call of `fit`.

        Args:
            stage: What the worker registers.
            on_return: A callback after another session has begun within this call.

        Returns:
            The weights to begin with, `float32[n + m]`; None if the other workers have completed this call.

        Raises:
            DownpourError: The coordinator or a shard cannot be reached, or has refused the registration.
            Exception: The error of another worker that has ended this call.
        """
        if self._refusal is not None:
            raise self._refusal  # the script has caught it
        self.stages, self._failed_elsewhere = self.stages + 1, False
        self._stage, self._session, self._on_return = stage, self._session_of(stage), on_return
        self._in_call, self.epoch, self._past = False, None, None
        try:
            self._join(self._session, stage)
            flat = self.pull()[0]
        except CallIsComplete:
            return None
        self._in_call = True
        return flat

    def _join(self, session: Session, stage: Stage) -> None:
        shards = f"the {counted(self._job.shards, 'shard')} of the job at {self.address}"
        try:
            with waiting_for(shards) if self.stages == 1 else nullcontext():
                session.register()
        except Unreachable as error:  # a server is being restarted
            self._return(error, session.number)
            return
        try:
            self._await_start(stage)
        except LOST as error:
            self._return(error, session.number)

    def begin_epoch(self, number: int) -> None:
        """Begin an epoch of the current call, numbered from 0, to which the samples that are leased belong."""
        self.epoch = number

    def refused(self, error: Unsupported) -> Unsupported:
        """Return an error, which every later call of `fit` raises as well, although the script may catch it."""
        self._refusal = error
        return error

    def leave(self, error: BaseException | None = None) -> None:
        """End this call of `fit`.

        Args:
            error: The error that ended it, also for the other workers; None if there is none.
        """
        if self._stage is not None and self._stage.leases is not None:
            self._stage.leases.clear()
        self._in_call = False
        session, self._session = self._session, None
        if session is None or self.fit_completed:
            return
        spent, self.spent = self.spent, TimeSpent()
        if self._failed_elsewhere:
            error = None  # the coordinator has reported this error itself
        failure = "" if error is None else text_of(error)
        session.leave(failure, spent, "" if error is None else error_type_of(error))

    def close(self) -> None:
        """Close the connection to the coordinator."""
        self.leave()
        self._thread.shutdown()
        self._control.close()

    def _session_of(self, stage: Stage) -> Session:
        registration = pb.RegisterRequest(
            worker=self.rank,
            layout=stage.layout.to_proto(),
            data=pb.DatasetInfo(
                name="a script's",
                checksum=stage.fingerprint,
                train_samples=stage.samples,
                lease_samples=stage.lease_samples,
                batch_samples=stage.batch_samples,
                epoch_batches=stage.epoch_batches,
                fingerprints=stage.data,
            ),
            environment=stage.environment,
            fit_call=self.stages,
            optimizers=stage.optimizers,
            fit=stage.description,
        )
        settings = SessionSettings(timeout_s=self._timeout_s, overlap=self.plan.overlap, fixed_rank=True)
        return Session(self._control, self._job, registration, settings, self._run)

    def _await_start(self, stage: Stage) -> None:
        session = self._registered
        reply = session.reply
        if reply.HasField("failure"):
            self.fit_completed = True
            if self.is_leader and not self._in_call and (reply.epoch_begun or reply.decisions):
                raise self.refused(Unsupported(UNTRAINED.format(self.stages)))
            raise self._failure_of(reply)
        if self._in_call and reply.fit_completed:
            self._go_through_past_call(reply)
            return
        if self._in_call:
            session.await_start(lambda client: self._initialise(client, stage))
            return
        self.fit_completed, self.decisions = reply.fit_completed, list(reply.decisions)
        self.joined_late = bool(self.decisions) or reply.epoch_begun
        self.epoch_begun, self.epoch_ending = reply.epoch_begun, reply.epoch_ending
        self.initial_epoch = reply.initial_epoch
        if self.fit_completed:
            raise CallIsComplete
        session.await_start(lambda client: self._initialise(client, stage))

    def _go_through_past_call(self, reply: pb.RegisterReply) -> None:
        """Go on without samples in a call that the others have completed while this worker was away.

        Raises:
            UnknownWorker: The weights at its end are not kept.
        """
        end = self.completed
        if end is None:
            raise UnknownWorker(
                "a worker must send heartbeats during fit. Received: none for too long; the other workers have "
                "completed this call of fit, whose weights are not kept (--checkpoint-every off, or the run directory "
                "cannot be read). Start the script again."
            )
        log("the other workers have completed this call of fit: this worker receives their weights and logs")
        self.fit_completed, self._past = True, PastCall(end, reply.decisions, reply.last)

    def _failure_of(self, reply: pb.RegisterReply | pb.BarrierReply) -> BaseException:
        self._failed_elsewhere = True
        return exception_of(reply.failure)

    @staticmethod
    def _initialise(client: Client, stage: Stage) -> None:
        client.initialise(stage.initial)
        for name, slot in stage.slots.items():
            whole = np.zeros(stage.layout.size, np.float32)
            whole[: len(slot)] = slot
            client.assign(whole, name)

    @property
    def _registered(self) -> Session:
        assert self._session is not None, "a worker must be within fit"
        return self._session

    @property
    def _connected(self) -> Client:
        return self._registered.client

    def _run(self, call: Callable[[], T]) -> T:
        """Return the result of a call that has the connections to itself meanwhile."""
        if self._session is not None and self._session.any_thread:  # a change of the thread takes longer than a push
            return self._run_alone(call)
        return self._thread.submit(self._run_alone, call).result()

    def _run_alone(self, call: Callable[[], T]) -> T:
        with self._calling:
            return call()

    # ------------------------------------------------------------------ weights

    def pull(self, pin: int = 0) -> tuple[np.ndarray, UpdateCounts]:
        """Return weights `float32[n + m]`, valid until the next call, and the updates of each optimizer.

        Args:
            pin: The number of a pinned version; 0 for the current version.
        """
        if self._past is not None:
            return self._past.end.flat, self._past.end.counts
        session = self._registered.number

        def pull_now() -> Pulled:  # pinned weights of a state that was restored are the current ones
            return self._connected.pull(pin if self._registered.number == session else 0)

        try:
            pulled = self._again(pull_now)
        except CallIsComplete:
            return self.pull()
        self.outdated = False
        self.versions = pulled.versions
        self.counts = UpdateCounts(pulled.replies[0].updates, pulled.replies[0].gradients)
        return pulled.flat, self.counts

    def push_pull(self, gradient: np.ndarray | ChunkedVector, info: PushInfo) -> np.ndarray:
        """Push a gradient `float32[n + m]` and return weights `float32[n + m]`, valid until the next call.

        If the session has ended, the gradient is lost, and the weights are those of a new session.
        """
        session = self._registered.number
        if self.outdated:  # another thread has begun another session since the caller looked
            return self.pull()[0]

        def exchange() -> Pulled:
            self._check_session(session)
            return self._connected.push_pull(gradient, info)

        return self._pulled(exchange, session)

    def push(self, gradient: np.ndarray, info: PushInfo) -> np.ndarray | None:
        """Push `float32[n + m]`, and return None; if the session has ended, return the weights of a new one."""
        session = self._registered.number
        if self.outdated:
            return self.pull()[0]

        def exchange() -> None:
            self._check_session(session)
            self._connected.push(gradient, info, pull=False)
            self._connected.pulled()

        try:
            self._run(exchange)
        except LOST as error:
            self._return(error, session)
            return self.pull()[0]
        return None

    def send(self, gradient: np.ndarray, info: PushInfo) -> None:
        """Begin `push_pull`, and let `receive` wait for the reply; nothing else may be requested in between."""
        session = self._registered.number
        if self.outdated:
            self._sent = (0, UnknownWorker("the session of this push has ended."))
            return

        def start() -> None:
            self._check_session(session)
            self._connected.push(gradient, info)

        self._sent = (session, None)
        try:
            self._run(start)
        except LOST as error:
            self._sent = (session, error)

    def receive(self) -> np.ndarray:
        """Return the result of the push that `send` has begun, as `push_pull` does."""
        session, error = self._sent

        def reply() -> Pulled:
            if error is not None or self._registered.number != session:  # the connection was that of another session
                raise error or UnknownWorker("the session of this push has ended.")
            return self._connected.pulled()

        return self._pulled(reply, session)

    def _check_session(self, session: int) -> None:
        """Raise the error that has ended a session, if it has ended: its leases must not be pushed in another one."""
        if self._past is not None:
            raise UnknownWorker("the other workers have completed this call of fit.")
        if self._registered.number != session:
            raise UnknownWorker("the session of this push has ended.")
        self._registered.check()

    def _pulled(self, exchange: Callable[[], Pulled], session: int) -> np.ndarray:
        try:
            pulled = self._run(exchange)
        except LOST as error:
            self._return(error, session)
            return self.pull()[0]
        self.versions = pulled.versions
        if pulled.replies[0].updates:
            self.counts = UpdateCounts(pulled.replies[0].updates, pulled.replies[0].gradients)
        return pulled.flat

    def assign(self, flat: np.ndarray, partial: bool = False) -> None:
        """Assign weights `float32[n + m]` on all shards; they are lost if the session has ended.

        Args:
            flat: The weights.
            partial: Whether elements that are NaN stay as they are.
        """
        if self._past is not None:
            return
        session = self._registered.number
        try:
            self._run(lambda: self._connected.assign(flat, partial=partial))
        except LOST as error:
            self._return(error, session)

    def pull_slots(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Return slots of the optimizer by name, `float32[n]`, from the servers."""
        if self._past is not None:
            return {name: self._past.end.slots[name] for name in names}
        assert self._stage is not None
        trained = self._stage.layout.trained

        def copy_of(name: str) -> np.ndarray:
            return self._connected.pull_slot(name)[:trained].copy()

        try:
            return {name: self._again(functools.partial(copy_of, name)) for name in names}
        except CallIsComplete:
            return self.pull_slots(names)

    def _again(self, call: Callable[[], T]) -> T:
        """Return the result of a call in the thread of the connections, after as many sessions as it takes.

        Raises:
            CallIsComplete: The others have completed this call of `fit` meanwhile.
        """
        while self._past is None:
            session = self._registered.number
            try:
                return self._run(call)
            except LOST as error:
                self._return(error, session)
        raise CallIsComplete

    def lease(self, ahead: bool = False, to_push: int = 0, per_push: int = 0) -> pb.Task:
        """Wait for the next lease of this epoch, at most as long as the coordinator holds the call.

        Args:
            ahead: Whether this worker trains on an earlier lease meanwhile: the call does not wait then.
            to_push: The number of batches of the lease until the next push, if gradients are added up; 0 otherwise.
            per_push: The number of batches of every later push.
        """
        wanted = pb.LeaseRequest(ahead=ahead, batches_to_push=to_push, batches_per_push=per_push)
        while self._session is not None and self._past is None:
            session = self._registered.number
            try:
                return self._control.lease(session, self.epoch, wanted)
            except LOST as error:  # perhaps no other thread would notice, because all wait for data
                self._return(error, session)
        return pb.Task(kind=pb.END)  # the call of `fit` is over

    def report_use(self, lease: int, stop: int, returned: bool = False) -> None:
        """Report that samples of a lease, up to a position, have been used without a push.

        Args:
            lease: The number of the lease.
            stop: The position.
            returned: Whether they are given back instead, to be leased again.
        """
        session = self._registered.number
        if self.outdated or self._past is not None:  # a lease of another session may have the same number
            return
        try:
            self._control.report_use(session, self.epoch, pb.LeaseUse(lease=lease, stop=stop, returned=returned))
        except LOST as error:
            self._return(error, session)  # the samples are leased again

    # ------------------------------------------------------------------ another session in the same call of fit

    def _return(self, error: DownpourError, session: int) -> None:
        """Begin another session in the same call of `fit`, unless another thread has done so since `session` ended.

        Servers that have been restarted are back when registration succeeds.

        Raises:
            DownpourError: The coordinator or a shard has been away for too long, or refuses the worker.
        """
        with self._renewal:
            give_up_s = time.monotonic() + self._job.reconnect_s
            while self._registered.number == session and self._past is None:
                if isinstance(error, CoordinatorGone) or time.monotonic() > give_up_s:
                    raise error
                try:
                    self._begin_session(error)
                    return
                except LOST as again:
                    error, session = again, self._registered.number
                    time.sleep(RETRY_S)

    def _begin_session(self, error: DownpourError) -> None:
        assert self._stage is not None
        self.outdated = True
        self._void_leases()
        self._registered.renew(error, self._in_call, has_trained=self.epoch is not None)
        self._void_leases()  # those that were requested until now belong to the session that has ended
        self._await_start(self._stage)
        if self._in_call:
            self._on_return()

    def _void_leases(self) -> None:
        if self._stage is not None and self._stage.leases is not None:
            self._stage.leases.void()

    # ------------------------------------------------------------------ barriers

    def set_learning_rates(self, rates: Sequence[pb.LearningRates]) -> None:
        """Set the learning rates of each optimizer's updates to come; only worker 0 calls it.

        Raises:
            UnknownWorker: The session has ended; `on_return` sets them again.
        """
        self._control.set_rates(pb.SetLearningRatesRequest(session=self._registered.number, rates=rates))

    def await_barrier(self, request: pb.BarrierRequest, prepare: Callable[[], None] | None = None) -> pb.BarrierReply:
        """Wait for the other workers or the decision of worker 0, as `is_answered` says.

        Args:
            request: The barrier, and what this worker brings; the session is filled in here.
            prepare: A function that sends what must be on the servers before; None if there is nothing.

        Raises:
            DownpourError: The coordinator cannot be reached, the job has failed, or the others do not come.
            Exception: The error of another worker that has ended this call of `fit`.
        """
        give_up_s = time.monotonic() + LONGEST_BARRIER_S
        prepared = 0  # the session in which that was sent
        while self._past is None:
            request.session = session = self._registered.number
            try:
                if prepare is not None and prepared != session:
                    prepared = session
                    prepare()
                    continue
                reply = self._control.meet(request)
            except LOST as error:
                self._return(error, session)
                continue
            if reply.HasField("failure"):
                raise self._failure_of(reply)
            if is_answered(request, reply, self.is_leader):
                return reply
            if time.monotonic() > give_up_s:
                raise DeadlineExceeded(
                    f"all workers must come to a barrier. Received: none of some for {LONGEST_BARRIER_S:g} s at "
                    f"{pb.BarrierKind.Name(request.kind)} of epoch {request.epoch}. Look at the logs of the workers."
                )
        return self._past.barrier(request)
