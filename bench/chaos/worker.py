"""A worker without TensorFlow whose gradients identify their samples (see signed_gradients.py).

    python -m downpour.bench.chaos.worker --server ADDRESS --worker N

Two environment variables complete its settings: DOWNPOUR_CHAOS_FLAGS, the file of shared_flags.py, and
DOWNPOUR_CHAOS_SHAPE, `slices samples pause_ms`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np

from downpour.bench.chaos.shared_flags import (
    ANSWERED,
    FILE_VARIABLE,
    IN_FLIGHT,
    NO_PAUSE,
    SENT,
    SHAPE_VARIABLE,
    SharedFlags,
)
from downpour.bench.chaos.signed_gradients import initial_weights, write_gradient
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import DownpourError
from downpour.protos.layout import TRAINED, Layout
from downpour.worker.exchange.coordinator_client import CoordinatorClient
from downpour.worker.exchange.push_info import PushInfo
from downpour.worker.exchange.session import SESSION_LOST, SILENT, Session, SessionSettings

CALL_TIMEOUT_S = 30.0


class ChaosWorker:
    """A worker that pulls, computes a signed gradient and pushes it, and joins again whenever it loses its session."""

    def __init__(self, server: str, number: int, flags: SharedFlags, slices: int, samples: int, pause_s: float) -> None:
        """Build a worker that is not connected yet.

        Args:
            server: `HOST:PORT` of the coordinator.
            number: The number of this worker.
            flags: The bytes shared with the benchmark.
            slices: The slices of the weights.
            samples: Training samples.
            pause_s: The minimum time of a gradient computation.
        """
        self._number, self._flags, self._slices, self._pause_s = number, flags, slices, pause_s
        self._control = CoordinatorClient(server, CALL_TIMEOUT_S)
        self._layout = Layout.of([("w", (slices * samples,), TRAINED)])
        self._data = pb.DatasetInfo(
            name="signed", checksum="0" * 64, train_samples=samples, validation_samples=1, test_samples=1
        )
        self._gradient = np.zeros(slices * samples, np.float32)
        self._pause = threading.Event()

    def run(self) -> int:
        """Work until the job has ended and return the exit status."""
        job = self._control.describe(60.0)
        self._control.tolerate_outage(job.reconnect_s)
        registration = pb.RegisterRequest(worker=self._number, layout=self._layout.to_proto(), data=self._data)
        session = Session(
            self._control, job, registration, SessionSettings(timeout_s=CALL_TIMEOUT_S, survives_outage=True)
        )
        session.register()
        while True:
            try:
                reason = self._work(job, session)
                session.leave(reason)
                return 1 if reason else 0
            except (*SESSION_LOST, *SILENT) as error:
                self._flags[IN_FLIGHT + self._number] = 0
                session.rejoin(error)
            finally:
                self._flags[IN_FLIGHT + self._number] = 0

    def _work(self, job: pb.JobDescription, session: Session) -> str:
        """Work for one session; return the reason why the job failed, or an empty string if it succeeded."""
        samples = len(self._gradient) // self._slices
        session.await_start(lambda client: client.initialise(initial_weights(self._slices, samples)))
        while True:
            task = self._control.lease(session.number)
            if task.kind == pb.TRAIN:
                self._train(job, task, session)
            elif task.kind in (pb.VALIDATE, pb.FINISH):
                self._evaluate(session, task)
            elif task.kind == pb.END:
                return task.reason

    def _train(self, job: pb.JobDescription, task: pb.Task, session: Session) -> None:
        pulled = session.client.pull()
        for start in range(task.start, task.stop, job.batch_size):
            stop = min(start + job.batch_size, task.stop)
            write_gradient(self._gradient, self._slices, task.epoch, start, stop)
            if not self._flags[NO_PAUSE]:
                self._pause.wait(self._pause_s)
            info = PushInfo(
                pulled.versions, loss=1.0, samples=stop - start, lease=task.lease, epoch=task.epoch, start=start,
                stop=stop,
            )  # fmt: skip
            push = self._flags[SENT + self._number] = (self._flags[SENT + self._number] + 1) % 256
            self._flags[IN_FLIGHT + self._number] = 1
            pulled = session.client.push_pull(self._gradient, info)
            self._flags[IN_FLIGHT + self._number] = 0
            self._flags[ANSWERED + self._number] = push
            session.check()
            if session.draining or any(reply.drain for reply in pulled.replies):
                return

    def _evaluate(self, session: Session, task: pb.Task) -> None:
        """Report an evaluation; the model that it uploads is the weights themselves."""
        flat = session.client.pull(task.pin).flat
        result = pb.Evaluation(samples=1, loss=float(flat.sum()), accuracy=0.5)
        request = pb.ReportRequest(session=session.number, kind=task.kind, epoch=task.epoch, validation=result)
        if task.kind == pb.FINISH:
            request.test.CopyFrom(result)
            with tempfile.TemporaryDirectory(prefix="downpour-chaos-") as folder:
                path = Path(folder) / "weights"
                path.write_bytes(flat.tobytes())
                self._control.upload(session.number, path)
        self._control.report(request)


def main(argv: list[str]) -> int:
    """Run one worker and return its exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--worker", type=int, required=True)
    given, _ = parser.parse_known_args(argv)
    slices, samples, pause_ms = map(int, os.environ[SHAPE_VARIABLE].split())
    flags = SharedFlags(Path(os.environ[FILE_VARIABLE]))
    worker = ChaosWorker(given.server, given.worker, flags, slices, samples, pause_ms / 1000)
    try:
        return worker.run()
    except DownpourError as error:
        print(f"chaos worker: {error}", file=sys.stderr, flush=True)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
