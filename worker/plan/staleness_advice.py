"""Says, before training, where several workers are likely to end at a higher loss than one process, and what helps."""

from __future__ import annotations

from downpour.ps.core.consistency import consistency_of

SHORT = 500  # updates for each unit of staleness: a training of fewer has not converged, see docs/keras.md


def staleness_advice(mode: str, workers: int, updates: int | None, optimizers: int) -> str:
    """Return advice on a call of `fit` that is short or adversarial; empty if it is neither, or nothing differs.

    Args:
        mode: The consistency mode of the job.
        workers: The number of workers.
        updates: The number of updates that one process would make; None if it is not known.
        optimizers: The number of optimizers of the model.
    """
    consistency = consistency_of(mode)
    for worker in range(workers):
        consistency.join(worker)
    staleness = consistency.expected_staleness()
    short = updates is not None and updates < SHORT * max(staleness, 1.0)
    if workers == 1 or not (short or optimizers > 1):
        return ""
    what = f"{optimizers} optimizers train against each other" if optimizers > 1 else f"{updates:,} updates are few"
    if consistency.fixed_assignment and short:
        return (
            f"{what}, and --mode {mode} makes one of {workers} batches: a higher loss than that of one process is "
            f"likely. What helps: {workers} times the learning rate, or more epochs. See docs/keras.md."
        )
    if staleness <= 0:
        return ""
    return (
        f"{what}, and with {workers} workers in mode {mode} a gradient is about {staleness:.2g} "
        f"update{'s' * (f'{staleness:.2g}' != '1')} old: a higher "
        "loss than that of one process is likely. What helps: a smaller learning rate, more epochs, or --mode bsp with "
        f"{workers} times the learning rate. See docs/keras.md."
    )
