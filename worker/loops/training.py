"""`downpour.training`: a training loop of the script's own, whose optimizers push to the servers and pull from them.

The loop of such a script:

    with downpour.training(model, optimizer) as job:
        for indices in job.leased(len(x), batch_size=32):
            with tf.GradientTape() as tape:
                loss = loss_of(y[indices], model(x[indices]))
            optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        print(job.mean(float(loss)))
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import Unsupported
from downpour.worker import script
from downpour.worker.fit.cluster.leases import Leases, Span
from downpour.worker.fit.cluster.script_worker import ScriptWorker
from downpour.worker.fit.cluster.stage import Stage
from downpour.worker.fit.optimizer.distributed_optimizer import DistributedOptimizer
from downpour.worker.fit.optimizer.loss_scale import innermost
from downpour.worker.fit.optimizer.model_optimizers import ModelOptimizers
from downpour.worker.loops.loop_gradient_op import RATES_AHEAD, LoopGradientOp, TrainedWeights
from downpour.worker.loops.training_job import TrainingJob, check_sizes, permutation

LEASES_PER_WORKER = 16  # in a pass over the samples, so that all workers end it at about the same time


class ClusterTrainingJob(TrainingJob):
    """The training job of one worker of `downpour run`."""

    def __init__(self, member: ScriptWorker, weights: TrainedWeights, optimizers: ModelOptimizers) -> None:
        """Build the job of a worker that has not joined the others yet.

        Args:
            member: This worker.
            weights: The weights that are trained.
            optimizers: The optimizers that train them.
        """
        super().__init__()
        self._member, self._optimizers = member, optimizers
        self._leases = Leases(member)
        self._op = _gradient_op(weights, optimizers, member)
        self._round = 0  # number of barriers that this worker has passed

    @property
    def stopping(self) -> bool:
        """Whether the job is asked to end, so that the loop should end after the current batch."""
        return self._member.draining

    def barrier(self) -> None:
        """Wait until all workers have called `barrier`; see `TrainingJob.barrier`."""
        self._meet([])

    def mean(self, value: Any) -> Any:
        """Return the mean of a value over all workers; see `TrainingJob.mean`."""
        array = np.asarray(value, np.float64)
        means = np.array(self._meet(array.ravel().tolist())).reshape(array.shape)
        return float(means) if array.ndim == 0 else means

    def leased(self, samples: int, batch_size: int = 32) -> Iterator[np.ndarray]:
        """Yield the indices of the batches that are leased to this worker; see `TrainingJob.leased`."""
        check_sizes(samples, batch_size)
        self._optimizers.check_every_batch_is_pushed()
        chosen = max(1, samples // (batch_size * LEASES_PER_WORKER * self.size))
        lease = batch_size * (self._member.lease_batches or chosen)
        self._meet([], pb.LeasePlan(samples=samples, lease_samples=lease))
        while (given := self._leases.next_lease()) is not None:
            positions = permutation(self._member.seed, given.epoch, samples)
            for start in range(given.start, given.stop, batch_size):
                span = given._replace(start=start, stop=min(start + batch_size, given.stop))
                if not self._leases.add(span):
                    break
                self._op.begin_span(span, self._leases)
                yield positions[span.start : span.stop]
                self._check_pushed(span)
        self._op.end_spans()

    def _check_pushed(self, span: Span) -> None:
        if self._leases.valid(span) and not self._leases.is_pushed(span):
            self._leases.clear()
            raise Unsupported(
                "an optimizer must be applied to every batch of job.leased before the next one. Received: a batch of "
                f"{span.stop - span.start} samples to which none was applied. Use job.rank and job.size to divide data "
                "that are not trained on."
            )

    # ------------------------------------------------------------------ begin and end

    def enter(self) -> None:
        """Join the other workers, all of which continue with the weights of worker 0."""
        if not self._member.plan.every_gradient:
            raise Unsupported(
                "in downpour.training every gradient is pushed, and the weights are pulled after each. Received: "
                f"{self._member.plan.setting}. Omit it, or use model.fit."
            )
        op, optimizers = self._op, self._optimizers
        environment = {
            "tensorflow": tf.__version__, "keras": keras.__version__, "python": platform.python_version(),
            "machine": platform.machine(),
        }  # fmt: skip
        stage = Stage(
            op.layout, optimizers.specs(RATES_AHEAD), op.fingerprint, op.read(), environment,
            slots=optimizers.slot_vectors(op.trained), leases=self._leases,
        )  # fmt: skip
        flat = self._member.enter(stage, op.send_rates_again)
        if flat is None:
            raise Unsupported(
                "a worker must take part in its training loop from the beginning. Received: a worker that was started "
                "again after the others had completed the loop. Start the script again."
            )
        op.write(flat.copy())
        self._member.advise(None, len(optimizers.optimizers))
        op.begin_loop(optimizers)
        optimizers.connect(op)
        self._begin_round()

    def end(self) -> None:
        """End the loop together with the other workers, all of which then have the same weights."""
        self._op.check_assigned()
        self._settle(pb.FIT_END)
        self._optimizers.connect(None)
        self._pull()
        self._optimizers.count_gradients()
        keep = self._optimizers.keep if self._member.is_leader else self._optimizers.keep_elsewhere
        keep(self._op.trained, self._member.pull_slots)

    def leave(self, error: BaseException | None) -> None:
        """End the session of this worker.

        Args:
            error: The error that has ended the loop, which the other workers will raise; None if there is none.
        """
        self._optimizers.connect(None)
        self._op.end_loop()
        self._member.leave(error)

    @property
    def error(self) -> Exception | None:
        """The exception of a push that failed, of which TensorFlow raises only the text; None if none failed."""
        return self._op.error

    # ------------------------------------------------------------------ barriers

    def _meet(self, values: Sequence[float], plan: pb.LeasePlan | None = None) -> list[float]:
        """Pass the barriers of one round, and return the means of the values over all workers."""
        self._op.check_assigned()
        self._op.end_spans()
        self._leases.clear()
        request = pb.BarrierRequest(kind=pb.EPOCH_METRICS, epoch=self._round, values=[1.0, *values])
        reply = self._member.await_barrier(request)
        if self._member.is_leader and not reply.HasField("decision"):
            count, *sums = reply.sums
            logs = {str(index): total / count for index, total in enumerate(sums)}
            decision = pb.Decision(logs=logs, leases=plan, learning_rates=self._optimizers.learning_rates)
            reply = self._settle(pb.EPOCH_METRICS, decision)
        logs = dict(reply.decision.logs)
        self._pull()
        self._settle(pb.EPOCH_END)
        self._round += 1
        self._begin_round()
        return [logs[str(index)] for index in range(len(values))]

    def _begin_round(self) -> None:
        reply = self._settle(pb.EPOCH_BEGIN, prepare=self._send_rates)
        if not self._member.is_leader:
            self._optimizers.follow(reply.decision.learning_rates)
        self._op.begin_epoch(self._round)

    def _send_rates(self) -> None:
        if self._member.is_leader:
            self._op.send_rates(with_schedule=True)

    def _settle(
        self, kind: pb.BarrierKind, decision: pb.Decision | None = None, prepare: Callable[[], None] | None = None
    ) -> pb.BarrierReply:
        request = pb.BarrierRequest(kind=kind, epoch=self._round)
        if self._member.is_leader:
            rates = self._optimizers.learning_rates
            request.decision.CopyFrom(decision or pb.Decision(learning_rates=rates))
        return self._member.await_barrier(request, prepare)

    def _pull(self) -> None:
        flat, counts = self._member.pull()
        self._op.write(flat.copy())
        self._optimizers.set_updates(counts)


@contextmanager
def training(trained: Any, optimizer: Any) -> Iterator[TrainingJob]:
    """Return a context in which the optimizers of a training loop push to the servers and pull from them.

    In a script that `downpour run` has started, `optimizer.apply` within the context pushes the gradients and assigns
    the weights that the servers return; all workers begin with the weights of worker 0 and end with the same. A model
    that is compiled with the optimizer may use `train_on_batch`. In any other process the loop runs as it is.

    Args:
        trained: A Keras model that is built, or a list of Keras variables. With several optimizers, a list of models or
            of lists of variables.
        optimizer: The optimizer, which is converted as by `DistributedOptimizer`; or a list with one for each of
            `trained`.

    Yields:
        The job: its rank and size, barriers, means over the workers and leased samples.

    Raises:
        Unsupported: The servers do not implement an optimizer, the numbers of optimizers and of models or lists differ,
            a model is not built, or two optimizers train one variable.
        Unsupported: The loop has assigned weights itself, or has applied no optimizer to a leased batch.
        DownpourError: A server cannot be reached.
        Exception: The exception of another worker, which ends the loop on all workers.
    """
    member = script.member
    optimizers = list(optimizer) if isinstance(optimizer, list | tuple) else [optimizer]
    groups = list(trained) if isinstance(optimizer, list | tuple) else [trained]
    if len(groups) != len(optimizers):
        raise Unsupported(
            "each optimizer must have a model or a list of variables of its own. Received: "
            f"{len(optimizers)} optimizers and {len(groups)} models or lists."
        )
    if member is None:
        yield TrainingJob()
        return
    weights = TrainedWeights(groups)
    members = [innermost(DistributedOptimizer(each)) for each in optimizers]
    job = ClusterTrainingJob(member, weights, ModelOptimizers(members, weights.owners))  # type: ignore[arg-type]
    failure: BaseException | None = None
    try:
        with weights.without_xla(), script.looping(), script.of_fit(member.stages + 1):  # type: ignore[attr-defined]
            job.enter()
            yield job
            job.end()
    except BaseException as error:
        failure = job.error or error
        if failure is not error:
            raise failure from None
        raise
    finally:
        job.leave(failure)


def _gradient_op(weights: TrainedWeights, optimizers: ModelOptimizers, member: ScriptWorker) -> LoopGradientOp:
    """Return the op of an earlier loop with these weights, because traced functions refer to it; else a new op."""
    first = optimizers.optimizers[0]
    op = getattr(first, "loop_gradient_op", None)
    if not isinstance(op, LoopGradientOp) or not op.is_of(weights, optimizers):
        op = LoopGradientOp(weights, optimizers, member)
        object.__setattr__(first, "loop_gradient_op", op)
    return op
