"""One worker: pull, gradient, push, as in the paper, on data that the coordinator leases."""

from __future__ import annotations

import os
import platform
import socket
import sys
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from protos import parameter_server_pb2 as pb
from protos.channel import PROTOCOL
from protos.errors import DownpourError, UnknownWorker
from worker.client import Client, Pulled, Samples
from worker.config import WorkerSettings
from worker.control import Control, Heartbeat
from worker.datasets import Split, scale_of, split
from worker.datasets import load as load_dataset
from worker.evaluate import Evaluator
from worker.feedback import Feedback
from worker.gradient import GradientFunction, layout_of, read_weights, write_weights
from worker.models import build


class Diverged(Exception):
    """Too many gradients in a row were not finite."""


class JobFailed(Exception):
    """The coordinator ended the job without a result."""


def log(message: str) -> None:
    """Prints a line with the time for a person."""
    print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)


class Worker:
    """One worker process at work on one job."""

    def __init__(self, settings: WorkerSettings, control: Control, job: pb.Job) -> None:
        """Builds the model and loads the data of the job.

        Args:
            settings: Of this process.
            control: The coordinator.
            job: As it describes itself.
        """
        self._settings, self._control, self._job = settings, control, job
        tf.config.threading.set_intra_op_parallelism_threads(settings.threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        keras.utils.set_random_seed(job.seed)
        self._dataset = load_dataset(named(settings.dataset, job.dataset, "dataset"))
        self._split: Split = split(self._dataset, job.validation_split)
        model_name = named(settings.model, job.model, "model")
        self._model = build(model_name, self._dataset.input_shape, self._dataset.classes)
        self._layout = layout_of(self._model)
        self._gradient = GradientFunction(self._model, self._dataset, job.batch_size, job.clip_norm)
        self._evaluate = Evaluator(self._model, scale_of(self._dataset))
        self._session = pb.Session()
        self._feedback: Feedback | None = None
        self._nonfinite_in_a_row = 0
        self._permutation: tuple[int, np.ndarray] = (-1, np.empty(0, np.int32))
        self._join(rejoin=False)

    # ------------------------------------------------------------------ membership

    def _join(self, rejoin: bool) -> None:
        request = pb.RegisterRequest(
            protocol=PROTOCOL,
            job=self._job.job,
            worker=self._session.worker if rejoin else self._settings.worker,
            rejoin=rejoin,
            layout=self._layout.to_proto(),
            data=pb.Data(
                name=self._dataset.name,
                checksum=self._dataset.checksum,
                train_samples=len(self._split.y_train),
                validation_samples=len(self._split.y_validation),
                test_samples=len(self._split.y_test),
            ),
            pid=os.getpid(),
            host=socket.gethostname(),
            facts=self._facts(),
        )
        self._session = self._control.register(request)
        self._client = self._connect()
        self._heartbeat = Heartbeat(
            self._control, self._session.session, self._job.heartbeat_s, self._client.watch
        )
        log(
            f"worker {self._session.worker}, incarnation {self._session.incarnation}, joined job {self._job.job}"
        )

    def _connect(self) -> Client:
        if self._feedback is None:
            slices = self._layout.cut(len(self._session.shards))
            self._feedback = Feedback(self._job.codec, slices, (self._job.seed, self._session.worker))
        return Client(
            self._session,
            self._layout,
            self._job.codec,
            self._settings.call_timeout_s,
            self._job.transport,
            self._feedback,
        )

    def _part(self) -> None:
        self._heartbeat.stop()
        self._client.close()

    def _facts(self) -> dict[str, str]:
        return {
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
            "threads": str(self._settings.threads),
            "xla": self._settings.xla,
        }

    # ------------------------------------------------------------------ the course of the job

    def run(self) -> None:
        """Works until the job is over.

        Raises:
            Diverged: Too many gradients in a row were not finite.
            JobFailed: The job ended without a result.
            DownpourError: As the server said.
        """
        failure = ""
        try:
            self._await_start()
            while self._one_life():
                pass
        except Exception as error:
            failure = str(error) or type(error).__name__
            raise
        finally:
            self._part()
            if not isinstance(self._heartbeat.lost, UnknownWorker):
                self._say_goodbye(failure)

    def _say_goodbye(self, failure: str) -> None:
        try:
            self._control.leave(self._session.session, bool(failure), failure)
        except DownpourError as error:
            log(f"left without a goodbye: {error}")

    def _one_life(self) -> bool:
        """Works until the job is over (False), or until this session is (True): then it has joined again."""
        try:
            self._tasks()
            return False
        except UnknownWorker as error:
            log(f"session lost, joining again: {error}")
            self._part()
            self._join(rejoin=True)
            self._await_start()
            return True

    def _await_start(self) -> None:
        initial = read_weights(self._model)
        times = self._gradient.warm_up(initial, self._settings.xla)
        log("gradient: " + ", ".join(f"{name} {1000 * s:.2f} ms" for name, s in times.items()))
        initialised = False
        while True:
            reply = self._control.ready(self._session.session, initialised, warm=True)
            if reply.initialise:
                self._client.initialise(initial)
                initialised = True
            if reply.start or reply.end:
                return

    def _tasks(self) -> None:
        while True:
            task = self._control.lease(self._session.session)
            if task.kind == pb.TRAIN:
                self._train(task)
            elif task.kind == pb.VALIDATE:
                self._validate(task)
            elif task.kind == pb.FINISH:
                self._finish(task)
            elif task.kind == pb.END:
                if task.reason:
                    raise JobFailed(task.reason)
                return

    def _train(self, task: pb.Task) -> None:
        """Pull, gradient, push over the positions of one lease."""
        order = self._order(task.epoch)
        pulled = self._client.pull()
        for start in range(task.start, task.stop, self._job.batch_size):
            stop = min(start + self._job.batch_size, task.stop)
            gradient = self._gradient(pulled.flat, order[start:stop])
            samples = Samples(
                stop - start, task.lease, task.epoch, start, stop, gradient.loss, gradient.correct
            )
            pulled = self._client.push_pull(
                gradient.flat, gradient.norm, samples, nonfinite=not gradient.finite
            )
            self._count_nonfinite(gradient.finite)
            if self._must_stop(pulled):
                return

    def _must_stop(self, pulled: Pulled) -> bool:
        if self._heartbeat.lost is not None:
            raise self._heartbeat.lost
        return self._heartbeat.drain or any(reply.drain for reply in pulled.replies)

    def _count_nonfinite(self, finite: bool) -> None:
        self._nonfinite_in_a_row = 0 if finite else self._nonfinite_in_a_row + 1
        if self._nonfinite_in_a_row >= self._job.nonfinite_limit:
            raise Diverged(
                f"gradients must be finite; received {self._nonfinite_in_a_row} in a row with NaN or Inf. "
                f"The learning rate ({self._job.learning_rate:g}) is too large: try a tenth of it, or --clip-norm 1."
            )

    def _order(self, epoch: int) -> np.ndarray:
        """The permutation of (seed, epoch) as `int32[n]`."""
        if self._permutation[0] != epoch:
            generator = np.random.default_rng((self._job.seed, epoch))
            self._permutation = (epoch, generator.permutation(len(self._split.y_train)).astype(np.int32))
        return self._permutation[1]

    # ------------------------------------------------------------------ evaluation

    def _validate(self, task: pb.Task) -> None:
        flat = self._client.pull(task.pin).flat
        result = self._evaluate(flat, self._split.x_validation, self._split.y_validation)
        log(f"epoch {task.epoch + 1}: validation loss {result.loss:.4f}, accuracy {result.accuracy:.4f}")
        session = self._session.session
        self._control.report(
            pb.ReportRequest(session=session, kind=pb.VALIDATE, epoch=task.epoch, validation=result)
        )

    def _finish(self, task: pb.Task) -> None:
        """Evaluates the last weights on both splits and sends the model."""
        flat = self._client.pull(task.pin).flat
        request = pb.ReportRequest(session=self._session.session, kind=pb.FINISH, epoch=task.epoch)
        request.test.CopyFrom(self._evaluate(flat, self._split.x_test, self._split.y_test))
        if len(self._split.y_validation):
            request.validation.CopyFrom(
                self._evaluate(flat, self._split.x_validation, self._split.y_validation)
            )
        write_weights(self._model, flat)
        with tempfile.TemporaryDirectory(prefix="downpour-") as folder:
            path = Path(folder) / "model.keras"
            self._model.save(path)
            self._control.upload(self._session.session, path)
        self._control.report(request)
        log(f"test loss {request.test.loss:.4f}, accuracy {request.test.accuracy:.4f}")


def named(own: str | None, jobs: str, what: str) -> str:
    """What to load: the worker's own flag where it has one, else the job's registry name.

    Raises:
        ValueError: The job names a function or a file, which is never taken from the wire.
    """
    if own is not None:
        return own
    if ":" in jobs or "/" in jobs or jobs.endswith(".npz"):
        raise ValueError(
            f"the job's {what} is {jobs!r}, which is not a registry name and is not taken from the wire: "
            f"start this worker with --{what} {jobs}"
        )
    return jobs
