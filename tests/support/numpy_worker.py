"""Workers without TensorFlow, in processes of their own, on the real control and data planes.

python -m tests.support.numpy_worker push --server ADDRESS --size N     pushes integer gradients until it is killed
python -m tests.support.numpy_worker train --server ADDRESS --size N    takes tasks until the job is over
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np

from downpour.protos import parameter_server_pb2 as pb
from tests.support.cluster import Member, vector_layout


def integer_gradient(worker: int, seq: int, n: int) -> np.ndarray:
    """Return a gradient of small integers, which is determined by the worker and the number of its push."""
    return np.random.default_rng((worker, seq)).integers(-8, 9, n).astype(np.float32)


def push(member: Member) -> None:
    """Push until the process is killed."""
    member.pull()
    for seq in itertools.count(1):
        gradient = integer_gradient(member.worker, seq, member.layout.size)
        member.push_pull(gradient)


def train(member: Member, pause_s: float = 0.0) -> None:
    """Carry out tasks until the job is over; gradients are integers, and evaluations sum the weights."""
    seq = 0
    while True:
        task = member.control.lease(member.session.session)
        if task.kind == pb.TRAIN:
            seq = _train(member, task, seq, pause_s)
        elif task.kind in (pb.VALIDATE, pb.FINISH):
            _evaluate(member, task)
        elif task.kind == pb.END:
            assert not task.reason, task.reason
            member.membership.leave()
            return


def _train(member: Member, task: pb.Task, seq: int, pause_s: float) -> int:
    member.pull()
    for start in range(task.start, task.stop, member.job.batch_size):
        stop = min(start + member.job.batch_size, task.stop)
        seq += 1
        threading.Event().wait(pause_s)
        gradient = integer_gradient(member.worker, seq, member.layout.size)
        fields = {"samples": stop - start, "lease": task.lease, "epoch": task.epoch, "start": start, "stop": stop}
        replies = member.push_pull(gradient, loss=1.0, **fields).replies
        if member.membership.draining or any(reply.drain for reply in replies):
            break
    return seq


def _evaluate(member: Member, task: pb.Task) -> None:
    total = float(member.client.pull(task.pin).flat.sum())
    result = pb.Evaluation(samples=8, loss=total, accuracy=0.5)
    request = pb.ReportRequest(session=member.session.session, kind=task.kind, epoch=task.epoch, validation=result)
    if task.kind == pb.FINISH:
        request.test.CopyFrom(result)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model"
            path.write_bytes(b"weights")
            member.control.upload(member.session.session, path)
    member.control.report(request)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["push", "train"])
    parser.add_argument("--server", required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--pause-ms", type=int, default=0, help="what a gradient takes at least")
    options = parser.parse_args()
    member = Member(options.server, vector_layout(options.size))
    member.await_start(np.zeros(options.size, np.float32))
    if options.what == "push":
        push(member)
    else:
        train(member, options.pause_ms / 1000)
    member.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
