"""The exchange that a job's plan of pushes and pulls needs, and the checks of what a model must be for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from downpour.protos.errors import Unsupported
from downpour.worker.fit.cluster.script_worker import ScriptWorker
from downpour.worker.fit.local.gradient_sums import SummedGradientOp
from downpour.worker.fit.local.local_steps import LocalStepsOp
from downpour.worker.fit.optimizer.gradient_op import GradientOp
from downpour.worker.fit.optimizer.model_optimizers import ModelOptimizers

if TYPE_CHECKING:
    from downpour.worker.fit.cluster.leases import Leases
    from downpour.worker.fit.optimizer.assignments import Assignments

EACH = "or let the workers push every gradient: mode async, without --push-every, --fetch-every and --overlap"


def gradient_op_of(
    model: Any,
    optimizers: ModelOptimizers,
    member: ScriptWorker,
    leases: Leases | None = None,
    assigned: Assignments | None = None,
) -> GradientOp:
    """Return the exchange for one call of `fit`, as the mode and the intervals of the job require.

    Args:
        model: A model that is built.
        optimizers: The distributed optimizers of the model.
        member: This worker.
        leases: The leases of this call of `fit`; None if the worker has a fixed part of the data.
        assigned: The variables that the train step assigns; None if it assigns moving statistics at most.

    Raises:
        Unsupported: The model, or its training, has no meaning with local steps.
    """
    plan = member.plan
    if plan.every_gradient:
        return GradientOp(model, optimizers, member, leases, assigned)
    _check_optimizers(optimizers, plan.setting)
    kind = SummedGradientOp if plan.payload == "gradient" else LocalStepsOp
    op = kind(model, optimizers, member, leases, assigned)
    op.check_local(assigned, plan.setting)
    _check_constraints(op, plan.setting)
    return op


def _check_optimizers(optimizers: ModelOptimizers, setting: str) -> None:
    names = [each.name for each in optimizers.optimizers]
    if len(names) > 1:
        raise Unsupported(
            f"with {setting} a model must have one optimizer, because the intervals between exchanges count the "
            f"batches of one. Received: {', '.join(names)}. Use one, {EACH}."
        )
    if optimizers.optimizers[0].use_ema:
        raise Unsupported(
            f"with {setting} an optimizer must not average the weights, because the averages are of updates on the "
            f"servers. Received: use_ema of {names[0]}. Leave it out, {EACH}."
        )
    if optimizers.optimizers[0].gradient_accumulation_steps:
        raise Unsupported(
            f"with {setting} an optimizer must not accumulate gradients as well. Received: "
            f"gradient_accumulation_steps of {names[0]}. Leave one of both out."
        )


def _check_constraints(op: GradientOp, setting: str) -> None:
    constrained = [tensor.name for tensor in op.layout.trained_tensors if tensor.flags.constraint is not None]
    if constrained:
        raise Unsupported(
            f"with {setting} weights must have no constraint, because the steps of a worker and their sum on the "
            f"servers would be constrained apart. Received: {constrained[0]} with one. Use a regularizer, {EACH}."
        )
