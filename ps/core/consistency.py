"""The registry of consistency modes: which workers may proceed, and which pushes form the next update.

A mode is a set of pure predicates. Adding one is adding a class and a row of `MODES`: the checks of settings, the
warnings and the workers' local steps follow from the attributes and methods of the class (`consistency_base`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from downpour.protos.sentences.sentence import sentence
from downpour.ps.core.consistency_base import Consistency, PendingPush, StalenessLaw, in_worker_order
from downpour.ps.core.registry import Parameter, positive, read, whole_number


class Async(Consistency):
    """Downpour SGD (Dean et al., NIPS 2012): p' = p + Δp as pushes arrive."""

    staleness_law = "own"


class SSP(Consistency):
    """Stale synchronous parallel (Ho et al., NIPS 2013): a step starts iff clock − min ≤ s."""

    staleness_law = "own"
    weighs_slow_workers = True

    def __init__(self, slack: int) -> None:
        """Create the mode with the bound s = `slack`."""
        super().__init__()
        self.slack: int = slack

    def may_proceed(self, worker: int, senders: Mapping[int, int]) -> bool:
        """Return whether the worker's clock is at most s above the smallest."""
        return self.clocks.get(worker, self.minimum) - self.minimum <= self.slack


class BSP(Consistency):
    """Bulk synchronous parallel: the mean of all live workers' gradients, at a barrier, summed in worker order."""

    buffers = True
    staleness_law: StalenessLaw = "zero"
    stale_gradients = False
    pulls_per_lease = True
    fixed_assignment = True

    def group(self, pending: Sequence[PendingPush], senders: Mapping[int, int]) -> list[int]:
        """Return all pushes, once every live worker has sent one."""
        return in_worker_order(pending) if pending and self.clocks.keys() <= senders.keys() else []

    def may_proceed(self, worker: int, senders: Mapping[int, int]) -> bool:
        """Return whether the worker's push is part of an update."""
        return worker not in senders

    def expected_staleness(self) -> float:
        """Return 0: all workers compute from the newest version."""
        return 0.0


class FirstK(BSP):
    """The behaviour that `kasync`, `backup` and `ksync` share: the mean of the gradients of the first K workers.

    With several shards, a worker of a built-in training waits only for its update on the first one. If it waited on
    every shard, workers whose pushes are in different groups on different shards could wait for each other.
    """

    staleness_law: StalenessLaw = ""
    fixed_assignment = False

    def __init__(self, count: int, waits: bool = True) -> None:
        """Create the mode.

        Args:
            count: K. With fewer live workers, an update needs only as many.
            waits: Whether workers wait for their update on this shard.
        """
        super().__init__()
        self.count, self._waits = count, waits

    def on_shard(self, index: int) -> Consistency:
        """Return the mode as the shard with this index follows it."""
        return type(self)(self.count, waits=index == 0)

    def may_proceed(self, worker: int, senders: Mapping[int, int]) -> bool:
        """Return whether the worker's push is part of an update, or need not be."""
        return not self._waits or super().may_proceed(worker, senders)

    @property
    def workers_needed(self) -> int:
        """K: with fewer workers an update never happens."""
        return self.count

    def group(self, pending: Sequence[PendingPush], senders: Mapping[int, int]) -> list[int]:
        """Return the first push of each of the first K distinct workers."""
        needed = max(1, min(self.count, self.live))
        if len(senders) < needed:
            return []
        first: dict[int, int] = {}
        for index, push in enumerate(pending):
            first.setdefault(push.worker, index)
        return sorted(list(first.values())[:needed], key=lambda index: pending[index].worker)


class KAsync(FirstK):
    """K-async SGD (Dutta et al., AISTATS 2018): the mean of K distinct workers' gradients, however stale."""

    staleness_law = "group"
    stale_gradients = True
    pulls_per_lease = False

    def expected_staleness(self) -> float:
        """Return P / K − 1: P / K groups pass while a worker computes one gradient, its own among them."""
        return max(0.0, self.live / max(1, min(self.count, self.live)) - 1.0)


class Backup(FirstK):
    """Backup workers (Chen et al., 2016): the mean of the first N of P gradients for a step; late ones are dropped."""

    def refuse(self, staleness: int) -> str:
        """Return "late" for a gradient that belongs to an earlier step."""
        return "late" if staleness else ""

    def group(self, pending: Sequence[PendingPush], senders: Mapping[int, int]) -> list[int]:
        """Return the first push of each of the first K distinct workers.

        Where workers do not wait, return all their pushes then: they were computed from the present version, and what
        remained would be late.
        """
        chosen = super().group(pending, senders)
        return in_worker_order(pending) if chosen and not self._waits else chosen

    def warnings(self, workers: int, learning_rate: float, virtual: bool) -> list[str]:
        """Return a warning if most gradients will be dropped."""
        if 2 * self.count >= workers:
            return []
        code = "gradients_of_many" if self.count != 1 else "one_gradient_of_many"
        return [sentence(code, count=str(self.count), workers=str(workers))]


class KSync(Backup):
    """K-sync SGD (Dutta et al., AISTATS 2018): as backup, but an update cancels and restarts the late steps.

    A step that runs in a real worker is not interrupted: there a late gradient is dropped when it arrives.
    """

    restarts = True

    def warnings(self, workers: int, learning_rate: float, virtual: bool) -> list[str]:
        """Return a warning if steps cannot be interrupted."""
        found: list[str] = [] if virtual else [sentence("ksync_is_backup")]
        return found + super().warnings(workers, learning_rate, virtual)


class Softsync(Consistency):
    """Softsync, K-batch-async (Zhang et al., IJCAI 2016): the mean of every c gradients, from any workers."""

    buffers = True
    weighs_slow_workers = True

    def __init__(self, count: int) -> None:
        """Create the mode with c = `count`."""
        super().__init__()
        self.count = count

    def group(self, pending: Sequence[PendingPush], senders: Mapping[int, int]) -> list[int]:
        """Return the first c pushes, once there are so many."""
        return list(range(self.count)) if len(pending) >= self.count else []

    def expected_staleness(self) -> float:
        """Return (P − 1) / c: P − 1 gradients arrive while a worker computes one, and every c of them are an update."""
        return max(0.0, (self.live - 1.0) / self.count)

    def warnings(self, workers: int, learning_rate: float, virtual: bool) -> list[str]:
        """Return a warning if a group must hold several gradients of one worker."""
        if self.count <= workers:
            return []
        code = "softsync_repeats" if workers != 1 else "softsync_of_one"
        return [sentence(code, count=str(self.count), workers=str(workers))]


class Ringmaster(Consistency):
    """Ringmaster ASGD (Maranjyan et al., 2025): apply a gradient iff τ < R, else drop it and send new weights."""

    pulls_per_lease = True

    def __init__(self, limit: int) -> None:
        """Create the mode with R = `limit`."""
        super().__init__()
        self.limit = limit

    def refuse(self, staleness: int) -> str:
        """Return "stale" for a gradient that is R or more versions old."""
        return "" if staleness < self.limit else "stale"

    def warnings(self, workers: int, learning_rate: float, virtual: bool) -> list[str]:
        """Return a warning if equally fast workers exceed the limit."""
        if self.limit >= workers:
            return []
        values = {"workers": str(workers), "staleness": str(workers - 1), "limit": str(self.limit)}
        return [sentence("ringmaster_drops", **values)]


class Rennala(Softsync):
    """Rennala SGD (Tyurin, Richtárik, NeurIPS 2023): the mean of S gradients taken at the current version."""

    stale_gradients = False
    pulls_per_lease = True

    def refuse(self, staleness: int) -> str:
        """Return "discarded" for a gradient of an earlier version."""
        return "discarded" if staleness else ""

    def expected_staleness(self) -> float:
        """Return 0: stale gradients are discarded."""
        return 0.0

    def warnings(self, workers: int, learning_rate: float, virtual: bool) -> list[str]:
        """Return a warning if updates will be rare."""
        if self.count <= 4 * workers:
            return []
        code = "rennala_is_slow" if workers != 1 else "rennala_of_one"
        return [sentence(code, count=str(self.count), workers=str(workers))]


class EASGD(Consistency):
    """Elastic averaging (Zhang, Choromanska, LeCun, NIPS 2015), asynchronous: algorithm 1 of the paper.

    Every k local steps a worker sends its weights x_i. With α = ηρ, and x̃ the shard's weights,
    x̃' = x̃ + α(x_i − x̃), and the worker continues from x_i' = x_i − α(x_i − x̃).
    """

    payload = "replica"

    def __init__(self, rho: float, period: int) -> None:
        """Create the mode with ρ = `rho` and k = `period`."""
        super().__init__()
        self.rho, self.period = rho, period

    def warnings(self, workers: int, learning_rate: float, virtual: bool) -> list[str]:
        """Return a warning if the moving rate is beyond the limit of stability."""
        alpha = self.rho * learning_rate
        if alpha <= 2 / 3:
            return []
        return [sentence("easgd_diverges", rate=f"{alpha:.3g}")]


class LocalSGD(Consistency):
    """Local SGD, asynchronous ("geo"): w' = w + Δ, where Δ is the change of the weights over k local steps."""

    payload = "difference"
    staleness_law = "own"

    def __init__(self, period: int) -> None:
        """Create the mode with k = `period`."""
        super().__init__()
        self.period = period


@dataclass(frozen=True, slots=True)
class Mode:
    """A row of the registry of modes.

    Attributes:
        doc: A phrase that describes the mode in the command line's help.
        make: A function that builds the mode from the values of its parameters.
        parameters: The parameters that follow the colon.
        example: A valid value of `--mode`.
    """

    doc: str
    make: Callable[..., Consistency]
    parameters: tuple[Parameter, ...] = ()
    example: str = ""


_N, _K, _C, _R = (whole_number(name, 1) for name in "NKCR")
MODES: dict[str, Mode] = {
    "async": Mode("apply every push at once", Async, example="async"),
    "bsp": Mode("average all workers at a barrier", BSP, example="bsp"),
    "backup": Mode("average the first N gradients of a step, drop late ones", Backup, (_N,), "backup:2"),
    "ssp": Mode("no worker is more than S steps ahead of the slowest", SSP, (whole_number("S", 0),), "ssp:2"),
    "ksync": Mode("average the first K gradients of a step, restart the other workers", KSync, (_K,), "ksync:2"),
    "kasync": Mode("average K workers while the others continue", KAsync, (_K,), "kasync:2"),
    "softsync": Mode("average every C pushes, no worker waits", Softsync, (_C,), "softsync:2"),
    "ringmaster": Mode("apply gradients that are less than R versions old", Ringmaster, (_R,), "ringmaster:8"),
    "rennala": Mode("average S gradients of the current version", Rennala, (whole_number("S", 1),), "rennala:2"),
    "easgd": Mode(
        "every K local steps move the weights of worker and server towards each other by η·RHO", EASGD,
        (positive("RHO"), _K), "easgd:0.5,4",
    ),
    "localsgd": Mode("every K local steps add the change of the weights", LocalSGD, (_K,), "localsgd:4"),
}  # fmt: skip


def consistency_of(mode: str, shard: int = 0) -> Consistency:
    """Return the mode that a value of `--mode` names, without live workers.

    Args:
        mode: The value of `--mode`.
        shard: The index of the shard that will follow it.

    Raises:
        ValueError: The value names no mode, or its parameters are invalid.
    """
    row, values = read(mode, MODES)
    return row.make(*values).on_shard(shard)
