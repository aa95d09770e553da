"""A worker without TensorFlow whose gradients sign for their samples (see marks.py); for `bench chaos`.

    python -m downpour.bench.chaos.worker --server ADDRESS --worker N

Its environment says the rest: DOWNPOUR_CHAOS_BOARD, a file that all processes of the experiment share (see `Board`);
DOWNPOUR_CHAOS_SHAPE, `slices samples pause_ms`.
"""

from __future__ import annotations

import argparse
import mmap
import os
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np

from downpour.bench.chaos.marks import initial_weights, mark
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import DownpourError
from downpour.protos.layout import TRAINED, Layout
from downpour.worker.exchange.client import Samples
from downpour.worker.exchange.coordinator_client import CoordinatorClient
from downpour.worker.exchange.session import SESSION_LOST, Session, SessionSettings

BOARD, SHAPE = "DOWNPOUR_CHAOS_BOARD", "DOWNPOUR_CHAOS_SHAPE"
# Places on the board: a byte that ends the pauses, then of each worker one that is 1 while a push is in flight, one
# with the number of its last push (modulo 256), and one with that of the last that was answered.
HURRY, BUSY, BEGUN, ANSWERED, BOARD_BYTES = 0, 1, 64, 128, 192
CALL_TIMEOUT_S = 30.0


class Board:
    """Bytes that the processes of one experiment share through a file."""

    def __init__(self, path: Path) -> None:
        """Maps the file, which is there."""
        with path.open("r+b") as file:
            self._bytes = mmap.mmap(file.fileno(), 0)

    def __getitem__(self, place: int) -> int:
        """The byte at a place."""
        return self._bytes[place]

    def __setitem__(self, place: int, value: int) -> None:
        """Sets the byte at a place."""
        self._bytes[place] = value


class ChaosWorker:
    """One worker: pull, mark, push, through every loss of its session."""

    def __init__(self, server: str, number: int, board: Board, slices: int, samples: int, pause_s: float) -> None:
        """Connects nothing yet."""
        self._number, self._board, self._slices, self._pause_s = number, board, slices, pause_s
        self._control = CoordinatorClient(server, CALL_TIMEOUT_S)
        self._layout = Layout.of([("w", (slices * samples,), TRAINED)])
        self._data = pb.DatasetInfo(
            name="marks", checksum="0" * 64, train_samples=samples, validation_samples=1, test_samples=1
        )
        self._gradient = np.zeros(slices * samples, np.float32)
        self._tick = threading.Event()

    def run(self) -> int:
        """Works until the job is over; returns the exit code."""
        job = self._control.describe(60.0)
        registration = pb.RegisterRequest(worker=self._number, layout=self._layout.to_proto(), data=self._data)
        session = Session(self._control, job, registration, SessionSettings(timeout_s=CALL_TIMEOUT_S))
        session.register()
        while True:
            try:
                reason = self._work(job, session)
                session.leave(reason)
                return 1 if reason else 0
            except SESSION_LOST as error:
                self._board[BUSY + self._number] = 0
                session.rejoin(error)
            finally:
                self._board[BUSY + self._number] = 0

    def _work(self, job: pb.JobDescription, session: Session) -> str:
        """Works until the session is lost; returns why the job failed, empty if it ended well."""
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
        session.client.pull()
        for start in range(task.start, task.stop, job.batch_size):
            stop = min(start + job.batch_size, task.stop)
            mark(self._gradient, self._slices, task.epoch, start, stop)
            if not self._board[HURRY]:
                self._tick.wait(self._pause_s)
            samples = Samples(stop - start, task.lease, task.epoch, start, stop, loss=1.0)
            push = self._board[BEGUN + self._number] = (self._board[BEGUN + self._number] + 1) % 256
            self._board[BUSY + self._number] = 1
            replies = session.client.push_pull(self._gradient, 1.0, samples).replies
            self._board[BUSY + self._number] = 0
            self._board[ANSWERED + self._number] = push
            session.check()
            if session.draining or any(reply.drain for reply in replies):
                return

    def _evaluate(self, session: Session, task: pb.Task) -> None:
        """What it uploads as the model are the weights, as they are."""
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
    """Runs one worker; returns its exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--worker", type=int, required=True)
    given, _ = parser.parse_known_args(argv)
    slices, samples, pause_ms = map(int, os.environ[SHAPE].split())
    board = Board(Path(os.environ[BOARD]))
    worker = ChaosWorker(given.server, given.worker, board, slices, samples, pause_ms / 1000)
    try:
        return worker.run()
    except DownpourError as error:
        print(f"chaos worker: {error}", file=sys.stderr, flush=True)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
