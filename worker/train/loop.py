"""One worker of `downpour train`: pull, gradient, push, on samples that the coordinator leases."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import DownpourError
from downpour.protos.logs import identify, log
from downpour.protos.system import clock, threads
from downpour.worker.config import WorkerSettings
from downpour.worker.exchange.coordinator_client import CoordinatorClient
from downpour.worker.exchange.errors import Diverged, JobFailed, Stopped
from downpour.worker.exchange.session import SESSION_LOST, SILENT, Session, SessionSettings
from downpour.worker.exchange.timing import TimeSpent
from downpour.worker.plan.push_plan import PushPlan
from downpour.worker.train.computation import Computation
from downpour.worker.train.lease_steps import LeaseSteps, PushResult
from downpour.worker.train.pipelined_steps import PipelinedLeaseSteps
from downpour.worker.train.watchdog import Watchdog

DRAIN_POLLS, DRAIN_POLL_S = 10, 0.1  # of the coordinator, which is signalled as well, until it drains
FRESH_S = 0.1  # after a longer wait for a lease, weights are pulled again


def job_drains(control: CoordinatorClient, session: int) -> bool:
    """Return whether the coordinator says, within the next replies, that the job drains.

    Replies are counted instead of seconds: a busy coordinator may answer the first call, which was made before it was
    signalled itself, after a second.

    Args:
        control: The client of the coordinator.
        session: The number of this worker's session.
    """
    for _ in range(DRAIN_POLLS):
        if control.away:
            return False
        try:
            if control.heartbeat(session).drain:
                return True
        except DownpourError:
            return False
        threads.sleep(DRAIN_POLL_S)
    return False


class Worker:
    """A worker process of one job."""

    def __init__(
        self, settings: WorkerSettings, control: CoordinatorClient, job: pb.JobDescription, computation: Computation
    ) -> None:
        """Register this worker with the coordinator.

        Args:
            settings: The settings of this process.
            control: The client of the coordinator.
            job: The description of the job.
            computation: The model and its data.
        """
        self._settings, self._control, self._job, self._computation = settings, control, job, computation
        control.tolerate_outage(job.reconnect_s)
        self._plan = PushPlan.of(job)
        self._warm, self._compiled = False, dict[str, str]()
        self._nonfinite_in_a_row = 0
        self._spent = TimeSpent()
        self._stopping = self._waiting = False
        registration = computation.registration()
        registration.evaluator = settings.evaluator
        if settings.worker is not None:
            registration.worker = settings.worker
        self._session = Session(control, job, registration, self._session_settings())
        self.watchdog = Watchdog(self._session, self._finish_in_watchdog, self._notify_leaving)
        self._session.register()
        self._steps = self._new_steps()

    # ------------------------------------------------------------------ membership

    def _session_settings(self) -> SessionSettings:
        return SessionSettings(
            timeout_s=self._settings.call_timeout_s, overlap=self._plan.overlap, survives_outage=True
        )

    def _new_steps(self) -> LeaseSteps:
        """Return the steps of a session that has just been registered."""
        session, job = self._session, self._job
        identify(job=job.job, process=f"worker-{session.worker}", worker=session.worker)
        log(f"worker {session.worker}, incarnation {session.reply.incarnation}, joined job {job.job}")
        kind = PipelinedLeaseSteps if self._plan.overlap else LeaseSteps
        own = self._computation
        return kind(
            session.client, own.one, own.many, self._plan, job, session.worker, own.layout.trained, own.samples,
            self._spent, self.watchdog.check,
        )  # fmt: skip

    # ------------------------------------------------------------------ the job

    def run(self) -> None:
        """Work until the job is over.

        Raises:
            Diverged: Too many gradients in a row were not finite.
            JobFailed: The job ended without a result.
            DownpourError: A server refuses the worker, or does not answer.
        """
        failure = ""
        self.watchdog.start()
        try:
            self._work()
        except Stopped:
            log("stopped by a signal: left the job")
        except Exception as error:
            failure = str(error) or type(error).__name__
            raise
        finally:
            self.watchdog.stop()
            with suppress(Stopped):  # a signal while the coordinator is away: it will see that the worker has left
                self._session.leave(failure, self._spent)

    def _work(self) -> None:
        """Work until the job is over, or until a signal stops the worker.

        A platform signals all processes at once. The job then drains, and the worker that a first signal has stopped
        remains to save the model; a second signal ends it.

        Raises:
            Stopped: The worker must leave the job.
        """
        try:
            while not self._work_until_session_lost():
                pass
        except Stopped:
            if not job_drains(self._control, self._session.number):
                raise
            log("stopped by a signal, like the job: stays until the model is saved")
            self._stopping = False
            while not self._work_until_session_lost():
                pass

    def stop(self) -> None:
        """Make the worker leave after its batch, in a signal handler; the rest of its lease goes to other workers."""
        self._stopping = True
        if self._waiting or self._control.away:
            raise Stopped

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Let `stop` interrupt calls within the context.

        Raises:
            Stopped: `stop` has been called.
        """
        self._waiting = True
        try:
            if self._stopping:
                raise Stopped
            yield
        finally:
            self._waiting = False

    def _notify_leaving(self) -> None:
        self._session.notify_leaving(spent=self._spent)

    def _work_until_session_lost(self) -> bool:
        """Work until the job is over (True), or until the session has been lost and registered again (False)."""
        try:
            self._await_start()
            self._run_tasks()
            return True
        except (*SESSION_LOST, *SILENT) as error:
            self._session.rejoin(error)
            self._steps = self._new_steps()
            return False

    def _await_start(self) -> None:
        if not self._warm:
            with self.watchdog.step():
                self._compiled = self._computation.warm_up()
            self._warm = True
        initial = self._computation.initial
        self._session.await_start(lambda client: client.initialise(initial), self._compiled, self._interruptible)

    def _run_tasks(self) -> None:
        examiner = self._computation.examiner
        while True:
            asked_s = clock.monotonic()
            with self._interruptible():
                task = self._control.lease(self._session.number)
            if self._plan.fresh or task.kind != pb.TRAIN or clock.monotonic() > asked_s + FRESH_S:
                self._steps.forget()
            if task.kind == pb.TRAIN:
                self._train(task)
            elif task.kind == pb.VALIDATE:
                with self.watchdog.step():
                    request = examiner.validate(task, self._session.client, self._deadline_unless_ending)
                if request is not None:
                    self._report(request)
            elif task.kind == pb.FINISH:
                self._report(
                    self._computation.examiner.finish(task, self._session.client, self._upload, self._deadline_of(task))
                )
            elif task.kind == pb.END:
                if task.reason:
                    raise JobFailed(task.reason)
                log("the job has ended")
                return

    def _finish_in_watchdog(self) -> int:
        """Do the last tasks of the job in the watchdog's thread; return the exit code.

        The model is saved and not evaluated, because evaluation would take too long as well.
        """
        client = self._session.open_client("grpc")
        while True:
            task = self._control.lease(self._session.number)
            if task.kind == pb.FINISH:
                self._report(self._computation.examiner.finish(task, client, self._upload, lambda: -math.inf))
            elif task.kind == pb.END:
                return 1 if task.reason else 0

    def _deadline_unless_ending(self) -> float:
        """Return the deadline of an evaluation that is abandoned as soon as the end of the job is awaited."""
        return math.inf if math.isinf(self._session.deadline) else -math.inf

    def _deadline_of(self, task: pb.Task) -> Callable[[], float]:
        """Return the deadline of the last evaluation, which a heartbeat may set during the evaluation."""
        own = clock.monotonic() + task.remaining_s if task.remaining_s else math.inf
        return lambda: min(own, self._session.deadline)

    def _upload(self, path: Path) -> None:
        self._control.upload(self._session.number, path)

    def _report(self, request: pb.ReportRequest) -> None:
        request.session = self._session.number
        self._control.report(request)
        for part, result in (("validation", request.validation), ("test", request.test)):
            if result.samples:
                log(f"epoch {request.epoch + 1}: {part} loss {result.loss:.4f}, accuracy {result.accuracy:.4f}")

    def _train(self, task: pb.Task) -> None:
        """Train on the samples of one lease."""
        with self._spent.training(), self.watchdog.step():
            for pushed in self._steps.train(task):
                self._count_nonfinite(pushed.finite)
                if self._must_stop(pushed):
                    return

    def _must_stop(self, pushed: PushResult) -> bool:
        self._session.check()
        return self._stopping or self._session.draining or any(reply.drain for reply in pushed.replies)

    def _count_nonfinite(self, finite: bool) -> None:
        self._nonfinite_in_a_row = 0 if finite else self._nonfinite_in_a_row + 1
        if self._nonfinite_in_a_row >= self._job.nonfinite_limit:
            raise Diverged(
                f"gradients must be finite; received {self._nonfinite_in_a_row} in a row with NaN or Inf. "
                f"The learning rate ({self._job.learning_rate:g}) is too large: try a tenth of it, or --clip-norm 1."
            )
