"""Who may proceed, and which pushes apply now: pure predicates, one row per mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from downpour.ps.core.registry import Parameter, positive, read, whole


class Pushed(Protocol):
    """What a policy may know of a push that waits."""

    @property
    def worker(self) -> int:
        """Who pushed."""


class Consistency:
    """A mode. Knows live workers and their clocks; never weights, time or waiting.

    The base is asynchronous: every push is an update of its own, nobody waits, nothing is dropped.

    Attributes:
        clocks: Completed steps of every live worker.
        minimum: The smallest of them; that of the last worker when none is left.
        buffers: Whether pushes wait to be applied together.
        restarts: Whether an update cancels the steps that are under way (virtual time only).
        payload: What a push holds: a gradient, the difference of some local steps, or a worker's own weights.
    """

    buffers = False
    restarts = False
    payload: Literal["gradient", "difference", "replica"] = "gradient"

    def __init__(self) -> None:
        """Starts without workers."""
        self.clocks: dict[int, int] = {}
        self.minimum = 0
        self._at: dict[int, int] = {}  # live workers by clock

    @property
    def live(self) -> int:
        """Workers that count."""
        return len(self.clocks)

    def join(self, worker: int) -> None:
        """Admits a worker; one that joins late starts at the smallest clock."""
        self.leave(worker)
        self.clocks[worker] = self.minimum
        self._at[self.minimum] = self._at.get(self.minimum, 0) + 1

    def leave(self, worker: int) -> None:
        """Forgets a worker: it left, died or has no more data."""
        clock = self.clocks.pop(worker, None)
        if clock is not None:
            self._at[clock] -= 1
            if not self._at[clock]:
                del self._at[clock]
            if self._at:
                self.minimum = min(self._at)

    def tick(self, worker: int) -> None:
        """Counts a step that a worker has completed."""
        clock = self.clocks.get(worker)
        if clock is None:
            return
        at = self._at
        self.clocks[worker] = clock + 1
        at[clock + 1] = at.get(clock + 1, 0) + 1
        if at[clock] > 1:
            at[clock] -= 1
            return
        del at[clock]
        if clock == self.minimum:
            self.minimum = clock + 1

    def refuse(self, staleness: int) -> str:
        """Why a push of that staleness must be dropped; empty if it counts."""
        return ""

    def group(self, pending: Sequence[Pushed], senders: Mapping[int, int]) -> list[int]:
        """Which of the pushes that wait are the next update, in the order in which they are summed.

        Args:
            pending: By arrival.
            senders: How many of them each worker sent.
        """
        return [0] if pending else []

    def may_proceed(self, worker: int, senders: Mapping[int, int]) -> bool:
        """Whether the worker may start its next step, given who sent the pushes that wait."""
        return True

    def expected_staleness(self) -> float:
        """Mean staleness with the live workers equally fast: one step in flight each."""
        return max(0.0, self.live - 1.0)


class Async(Consistency):
    """Downpour SGD (Dean et al., NIPS 2012): p' = p + Δp as pushes arrive."""


class SSP(Consistency):
    """Stale synchronous parallel (Ho et al., NIPS 2013): a step starts iff clock − min ≤ s."""

    def __init__(self, slack: int) -> None:
        """With the bound s."""
        super().__init__()
        self.slack = slack

    def may_proceed(self, worker: int, senders: Mapping[int, int]) -> bool:
        """Whether the worker's clock is at most s above the smallest."""
        return self.clocks.get(worker, self.minimum) - self.minimum <= self.slack


class BSP(Consistency):
    """Bulk synchronous parallel: the mean of all live workers' gradients, at a barrier, in worker order."""

    buffers = True

    def group(self, pending: Sequence[Pushed], senders: Mapping[int, int]) -> list[int]:
        """All, once every live worker has sent one."""
        return in_worker_order(pending) if pending and self.clocks.keys() <= senders.keys() else []

    def may_proceed(self, worker: int, senders: Mapping[int, int]) -> bool:
        """Whether the worker's push is part of an update."""
        return worker not in senders

    def expected_staleness(self) -> float:
        """None: everybody computes from the newest version."""
        return 0.0


class KAsync(BSP):
    """K-async SGD (Dutta et al., AISTATS 2018): the mean of K distinct workers' gradients, however stale."""

    def __init__(self, count: int) -> None:
        """With K, of which as many are needed as live workers can give."""
        super().__init__()
        self.count = count

    def group(self, pending: Sequence[Pushed], senders: Mapping[int, int]) -> list[int]:
        """The first push of each of the first K distinct workers."""
        needed = max(1, min(self.count, self.live))
        if len(senders) < needed:
            return []
        first: dict[int, int] = {}
        for index, push in enumerate(pending):
            first.setdefault(push.worker, index)
        return sorted(list(first.values())[:needed], key=lambda index: pending[index].worker)

    def expected_staleness(self) -> float:
        """P / K groups pass while each worker computes one gradient, its own among them."""
        return max(0.0, self.live / max(1, min(self.count, self.live)) - 1.0)


class Backup(KAsync):
    """Backup workers (Chen et al., 2016): the mean of the first N of P for a step; the late are dropped."""

    def refuse(self, staleness: int) -> str:
        """Late is what belongs to a step that is over."""
        return "late" if staleness else ""

    def expected_staleness(self) -> float:
        """None: what is late is dropped."""
        return 0.0


class KSync(Backup):
    """K-sync SGD (Dutta et al., AISTATS 2018): as backup, but an update cancels and restarts the late.

    A step that runs in a real worker is not interrupted: there the late are told when they arrive.
    """

    restarts = True


class Softsync(Consistency):
    """Softsync, K-batch-async (Zhang et al., IJCAI 2016): the mean of every c gradients, whoever sent them."""

    buffers = True

    def __init__(self, count: int) -> None:
        """With c."""
        super().__init__()
        self.count = count

    def group(self, pending: Sequence[Pushed], senders: Mapping[int, int]) -> list[int]:
        """The first c."""
        return list(range(self.count)) if len(pending) >= self.count else []

    def expected_staleness(self) -> float:
        """P − 1 gradients arrive while a worker computes one, and every c of them are an update."""
        return max(0.0, (self.live - 1.0) / self.count)


class Ringmaster(Consistency):
    """Ringmaster ASGD (Maranjyan et al., 2025): apply iff τ < R; else ignore it and send fresh weights."""

    def __init__(self, limit: int) -> None:
        """With R."""
        super().__init__()
        self.limit = limit

    def refuse(self, staleness: int) -> str:
        """Stale is what is R versions old, or more."""
        return "" if staleness < self.limit else "stale"


class Rennala(Softsync):
    """Rennala SGD (Tyurin, Richtárik, NeurIPS 2023): the mean of S gradients taken at the current version."""

    def refuse(self, staleness: int) -> str:
        """Gradients of earlier versions are discarded."""
        return "discarded" if staleness else ""

    def expected_staleness(self) -> float:
        """None: what is stale is discarded."""
        return 0.0


class EASGD(Consistency):
    """Elastic averaging (Zhang, Choromanska, LeCun, NIPS 2015), asynchronous: its algorithm 1.

    Every k local steps a worker sends its weights x_i. With α = ηρ, and x̃ the shard's weights,
    x̃' = x̃ + α(x_i − x̃), and the worker goes on from x_i' = x_i − α(x_i − x̃).
    """

    payload = "replica"

    def __init__(self, rho: float, period: int) -> None:
        """With ρ and k."""
        super().__init__()
        self.rho, self.period = rho, period


class LocalSGD(Consistency):
    """Local SGD, asynchronous ("geo"): w' = w + Δ, the difference that k local steps have made."""

    payload = "difference"

    def __init__(self, period: int) -> None:
        """With k."""
        super().__init__()
        self.period = period


def in_worker_order(pending: Sequence[Pushed]) -> list[int]:
    """Indices of all pushes, by worker and then arrival: sums in this order repeat bit by bit."""
    return sorted(range(len(pending)), key=lambda index: pending[index].worker)


@dataclass(frozen=True, slots=True)
class Mode:
    """A row of the registry.

    Attributes:
        doc: One line for a person.
        make: Gives the policy for the parameters' values.
        parameters: What follows the colon.
        example: A value of `--mode`.
    """

    doc: str
    make: Callable[..., Consistency]
    parameters: tuple[Parameter, ...] = ()
    example: str = ""


MODES: dict[str, Mode] = {
    "async": Mode("apply every push at once", Async, example="async"),
    "bsp": Mode("average all workers at a barrier", BSP, example="bsp"),
    "backup": Mode("average the first N of a step, drop the late", Backup, (whole("N", 1),), "backup:2"),
    "ssp": Mode("nobody is more than S steps ahead of the slowest", SSP, (whole("S", 0),), "ssp:2"),
    "ksync": Mode("average the first K of a step, restart the others", KSync, (whole("K", 1),), "ksync:2"),
    "kasync": Mode("average K workers, let the others go on", KAsync, (whole("K", 1),), "kasync:2"),
    "softsync": Mode("average every C pushes, nobody waits", Softsync, (whole("C", 1),), "softsync:2"),
    "ringmaster": Mode("apply what is less than R versions old", Ringmaster, (whole("R", 1),), "ringmaster:8"),
    "rennala": Mode("average S gradients of the current version", Rennala, (whole("S", 1),), "rennala:2"),
    "easgd": Mode(
        "every K local steps pull worker and server together by η·RHO", EASGD,
        (positive("RHO"), whole("K", 1)), "easgd:0.5,4",
    ),
    "localsgd": Mode("every K local steps add their difference", LocalSGD, (whole("K", 1),), "localsgd:4"),
}  # fmt: skip


def consistency_of(mode: str) -> Consistency:
    """A policy without workers, for a `--mode` value.

    Raises:
        ValueError: It is none.
    """
    row, values = read(mode, MODES)
    return row.make(*values)
