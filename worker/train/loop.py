"""One worker: pull, gradient, push, as in the paper, on data that the coordinator leases."""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import keras
import tensorflow as tf

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.channel import PROTOCOL
from downpour.protos.errors import DownpourError, Fenced, FutureVersion, UnknownWorker, Unreachable
from downpour.protos.logs import identify, log
from downpour.worker.catalog.datasets import Split, scale_of, split
from downpour.worker.catalog.datasets import load as load_dataset
from downpour.worker.catalog.models import build, check_targets, load_weights
from downpour.worker.compute.environment import compiled_facts, facts_here
from downpour.worker.compute.gradient import GradientFunction, layout_of, read_weights
from downpour.worker.compute.local_steps import LocalSteps
from downpour.worker.config import WorkerSettings, named
from downpour.worker.exchange.client import Client
from downpour.worker.exchange.coordinator_client import CoordinatorClient, Heartbeat
from downpour.worker.exchange.error_feedback import ErrorFeedback
from downpour.worker.exchange.errors import Diverged, JobFailed, Stopped
from downpour.worker.exchange.outage import CoordinatorGone
from downpour.worker.exchange.timing import TimeSpent
from downpour.worker.train.evaluation import EvaluationRunner
from downpour.worker.train.lease_steps import LeaseSteps, PushResult
from downpour.worker.train.pipelined_steps import PipelinedLeaseSteps
from downpour.worker.train.push_plan import PushPlan
from downpour.worker.train.timed_link import TimedLink
from downpour.worker.train.watchdog import Watchdog

FRESH_S = 0.1  # after a longer wait for a lease, weights are pulled anew


class Worker:
    """One worker process at work on one job."""

    def __init__(self, settings: WorkerSettings, control: CoordinatorClient, job: pb.JobDescription) -> None:
        """Builds the model and loads the data of the job.

        Args:
            settings: Of this process.
            control: The coordinator.
            job: As it describes itself.
        """
        self._settings, self._control, self._job = settings, control, job
        control.absence.wait_for(job.reconnect_s)
        tf.config.threading.set_intra_op_parallelism_threads(settings.threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        keras.utils.set_random_seed(job.seed)
        self._dataset = load_dataset(named(settings.dataset, job.dataset, "dataset"))
        self._split: Split = split(self._dataset, job.validation_split)
        model_name = named(settings.model, job.model, "model")
        self._model = build(model_name, self._dataset.input_shape, self._dataset.classes)
        if settings.weights:
            load_weights(self._model, settings.weights)
        check_targets(model_name, self._model, self._dataset.y_train)
        self._layout = layout_of(self._model)
        self._plan = PushPlan.of(job)
        self._gradient = GradientFunction(self._model, self._dataset, job.batch_size, job.clip_norm, settings.threads)
        most = min(self._plan.push_every, self._plan.fetch_every)
        self._local = LocalSteps(self._gradient, job.learning_rate, most) if most > 1 else None
        self._examiner = EvaluationRunner(self._model, self._split, scale_of(self._dataset))
        self._initial = read_weights(self._model)  # a job that starts over begins from these again
        self._warm = False
        self._session = pb.RegisterReply()
        self._feedback: ErrorFeedback | None = None
        self._nonfinite_in_a_row = 0
        self._spent = TimeSpent()
        self._stopping = self._waiting = False
        self._cut_off = False  # a server did not answer, and nothing was pushed since
        self.deputy = Watchdog(lambda: self._heartbeat, self._finish_aside, self._say_goodbye)
        self._join(rejoin=False)

    # ------------------------------------------------------------------ membership

    def _join(self, rejoin: bool) -> None:
        request = pb.RegisterRequest(
            protocol=PROTOCOL,
            job=self._job.job,
            worker=self._session.worker if rejoin else self._settings.worker,
            rejoin=rejoin,
            evaluator=self._settings.evaluator,
            layout=self._layout.to_proto(),
            data=pb.DatasetInfo(
                name=self._dataset.name,
                checksum=self._dataset.checksum,
                train_samples=len(self._split.y_train),
                validation_samples=len(self._split.y_validation),
                test_samples=len(self._split.y_test),
            ),
            pid=os.getpid(),
            host=socket.gethostname(),
            environment={**facts_here(), "threads": str(self._settings.threads), "xla": self._settings.xla},
        )
        if self._settings.weights:
            request.environment["weights"] = self._settings.weights
            request.environment["weights_sha256"] = sha256(Path(self._settings.weights).read_bytes()).hexdigest()
        self._session = self._control.register(request)
        self._client = self._connect(self._job.transport)
        self._course = self._new_course()
        session, every_s = self._session, self._job.heartbeat_s
        self._heartbeat = Heartbeat(self._control, session.session, every_s, self._client.watch, self._client.give_up)
        identify(job=self._job.job, process=f"worker-{session.worker}", worker=session.worker)
        log(f"worker {session.worker}, incarnation {session.incarnation}, joined job {self._job.job}")

    def _connect(self, transport: str) -> Client:
        if self._feedback is None:
            slices = self._layout.cut(len(self._session.shards))
            self._feedback = ErrorFeedback(self._job.codec, slices, (self._job.seed, self._session.worker))
        job, timeout_s = self._job, self._settings.call_timeout_s
        return Client(self._session, self._layout, job.codec, timeout_s, transport, self._feedback, self._plan.overlap)

    def _new_course(self) -> LeaseSteps:
        kind = PipelinedLeaseSteps if self._plan.overlap else LeaseSteps
        worker, trained, samples = self._session.worker, self._layout.trained, len(self._split.y_train)
        link = TimedLink(self._client, self._spent, self.deputy.check)
        return kind(link, self._gradient, self._local, self._plan, self._job, worker, trained, samples)

    def _part(self) -> None:
        self._heartbeat.stop()
        self._client.close()

    # ------------------------------------------------------------------ the course of the job

    def run(self) -> None:
        """Works until the job is over.

        Raises:
            Diverged: Too many gradients in a row were not finite.
            JobFailed: The job ended without a result.
            DownpourError: As the server said.
        """
        failure = ""
        self.deputy.start()
        try:
            while self._one_life():
                pass
        except Stopped:
            log("asked to stop: left the job")
        except Exception as error:
            failure = str(error) or type(error).__name__
            raise
        finally:
            self.deputy.stop()
            self._part()
            if not isinstance(self._heartbeat.lost, UnknownWorker):
                self._say_goodbye(failure)

    def stop(self) -> None:
        """Has the worker leave after its batch; what is left of its lease goes to others. For a signal handler."""
        self._stopping = True
        if self._waiting or self._control.absence.away:
            raise Stopped

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """While it lasts, `stop` breaks off what is waited for.

        Raises:
            Stopped: The worker has been asked to leave.
        """
        self._waiting = True
        try:
            if self._stopping:
                raise Stopped
            yield
        finally:
            self._waiting = False

    def _say_goodbye(self, failure: str = "") -> None:
        if self._control.absence.away:
            return
        try:
            spent = self._spent
            self._control.leave(self._session.session, bool(failure), failure, spent.step_s, spent.exchange_s)
        except DownpourError as error:
            log(f"left without a goodbye: {error}")

    def _one_life(self) -> bool:
        """Works until the job is over (False), or until this session is (True): then it has joined again."""
        try:
            self._await_start()
            self._tasks()
            return False
        except (UnknownWorker, Fenced, FutureVersion, Unreachable) as error:
            if isinstance(error, Unreachable):
                if self._cut_off or isinstance(
                    error, CoordinatorGone
                ):  # a second time without a push between: its address may be wrong
                    raise
                self._cut_off = True
            log(f"session lost, joining again: {error}")
            self._part()
            self._join(rejoin=True)
            return True

    def _await_start(self) -> None:
        if not self._warm:
            steps = self._local or self._gradient
            with self.deputy.step():
                times = steps.warm_up(self._initial, self._settings.xla, log)
            log("gradient: " + ", ".join(f"{name} {1000 * s:.2f} ms" for name, s in times.items()))
            self._warm = True
        initialised, compiled = False, compiled_facts((self._local or self._gradient).xla, self._gradient.model)
        while True:
            with self._interruptible():
                reply = self._control.ready(self._session.session, initialised, True, compiled)
            if reply.initialise:
                self._client.initialise(self._initial)
                initialised = True
            if reply.start or reply.end:
                return

    def _tasks(self) -> None:
        while True:
            asked_s = time.monotonic()
            with self._interruptible():
                task = self._control.lease(self._session.session)
            if self._plan.fresh or task.kind != pb.TRAIN or time.monotonic() > asked_s + FRESH_S:
                self._course.forget()
            if task.kind == pb.TRAIN:
                self._train(task)
            elif task.kind == pb.VALIDATE:
                with self.deputy.step():
                    request = self._examiner.validate(task, self._client, self._unless_hurried)
                if request is not None:
                    self._report(request)
            elif task.kind == pb.FINISH:
                self._report(self._examiner.finish(task, self._client, self._upload, self._deadline_of(task)))
            elif task.kind == pb.END:
                if task.reason:
                    raise JobFailed(task.reason)
                log("the job has ended")
                return

    def _finish_aside(self) -> int:
        """Gives up the batch and sees to the end of the job, in the deputy's thread; returns the exit code.

        The model is saved and not evaluated: where a step takes too long, so does that.
        """
        client = self._connect("grpc")
        while True:
            task = self._control.lease(self._session.session)
            if task.kind == pb.FINISH:
                self._report(self._examiner.finish(task, client, self._upload, lambda: -math.inf))
            elif task.kind == pb.END:
                return 1 if task.reason else 0

    def _unless_hurried(self) -> float:
        """The deadline of an evaluation that is given up as soon as somebody waits for the end."""
        return math.inf if math.isinf(self._heartbeat.deadline) else -math.inf

    def _deadline_of(self, task: pb.Task) -> Callable[[], float]:
        """The deadline of the last evaluation, of which a heartbeat may tell while it goes on."""
        own = time.monotonic() + task.remaining_s if task.remaining_s else math.inf
        return lambda: min(own, self._heartbeat.deadline)

    def _upload(self, path: Path) -> None:
        self._control.upload(self._session.session, path)

    def _report(self, request: pb.ReportRequest) -> None:
        request.session = self._session.session
        self._control.report(request)
        for part, result in (("validation", request.validation), ("test", request.test)):
            if result.samples:
                log(f"epoch {request.epoch + 1}: {part} loss {result.loss:.4f}, accuracy {result.accuracy:.4f}")

    def _train(self, task: pb.Task) -> None:
        """Pull, gradient, push over the positions of one lease."""
        with self._spent.training(), self.deputy.step():
            for pushed in self._course.train(task):
                self._cut_off = False
                self._count_nonfinite(pushed.finite)
                if self._must_stop(pushed):
                    return

    def _must_stop(self, pushed: PushResult) -> bool:
        if self._heartbeat.lost is not None:
            raise self._heartbeat.lost
        return self._stopping or self._heartbeat.drain or any(reply.drain for reply in pushed.replies)

    def _count_nonfinite(self, finite: bool) -> None:
        self._nonfinite_in_a_row = 0 if finite else self._nonfinite_in_a_row + 1
        if self._nonfinite_in_a_row >= self._job.nonfinite_limit:
            raise Diverged(
                f"gradients must be finite; received {self._nonfinite_in_a_row} in a row with NaN or Inf. "
                f"The learning rate ({self._job.learning_rate:g}) is too large: try a tenth of it, or --clip-norm 1."
            )
