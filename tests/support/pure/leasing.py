"""A worker in this process that pushes for samples of its leases."""

from __future__ import annotations

from downpour.protos import parameter_server_pb2 as pb
from tests.support.cluster import Member
from tests.support.numpy_worker import integer_gradient


def push_leased(member: Member, count: int, first_seq: int = 1) -> int:
    """Push for `count` batches of leased samples, and return how many were pushed."""
    seq = first_seq
    while seq < first_seq + count:
        task = member.control.lease(member.session.session)
        if task.kind == pb.VALIDATE:
            result = pb.Evaluation(samples=8, loss=1.0, accuracy=0.5)
            member.control.report(
                pb.ReportRequest(session=member.session.session, kind=task.kind, epoch=task.epoch, validation=result)
            )
            continue
        assert task.kind == pb.TRAIN, task
        member.pull()
        for start in range(task.start, task.stop, member.job.batch_size):
            stop = min(start + member.job.batch_size, task.stop)
            fields = {"samples": stop - start, "lease": task.lease, "epoch": task.epoch, "start": start, "stop": stop}
            member.push_pull(integer_gradient(0, seq, member.layout.size), loss=1.0, **fields)
            seq += 1
            if seq == first_seq + count:
                break
    return seq - first_seq
