"""The faults of a simulated world: drawn from a seed, written as text, and executed at their times."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NETWORK, DISK, PROCESSES = (
    ("reset", "cut", "lose"),
    ("full", "readonly"),
    ("kill", "killat", "stop", "term", "termall", "power", "powerat"),
)
KINDS = (*PROCESSES, *NETWORK, *DISK, "clock", "hang", "nan", "lie", "report")


@dataclass(frozen=True)
class Fault:
    """A fault that is injected into a simulated job.

    Attributes:
        kind: One of `KINDS`.
        target: The name of the affected process, machine or pair of machines.
        at: The virtual time in seconds; for `killat` and `powerat` the number of an event of the process, for `hang`
            and `nan` that of a step, for `lie` that of a push, for `report` that of a report, for `lose` that of a
            message from a server.
        seconds: The duration of the fault, or the distance by which a clock jumps, in seconds; 0 if it has none.
    """

    kind: str
    target: str
    at: float
    seconds: float = 0.0

    def __str__(self) -> str:
        """Return the fault as `KIND:TARGET@AT`, followed by `+SECONDS` if it lasts."""
        return f"{self.kind}:{self.target}@{self.at:g}" + (f"+{self.seconds:g}" if self.seconds else "")

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Return the fault that a text describes.

        Raises:
            ValueError: The text does not describe a fault.
        """
        kind, _, rest = text.partition(":")
        target, _, time_s = rest.partition("@")
        at, _, seconds = time_s.partition("+")
        if kind not in KINDS or not target or not at:
            raise ValueError(
                f"a fault must be KIND:TARGET@AT[+SECONDS], with a kind of {', '.join(KINDS)}; received {text!r}"
            )
        return cls(kind, target, float(at), float(seconds or 0))


def parse_faults(text: str) -> list[Fault]:
    """Return the faults in a text, which are separated by spaces or commas."""
    return [Fault.parse(each) for each in text.replace(",", " ").split()]


def written(faults: Iterable[Fault]) -> str:
    """Return faults as one text, which `parse_faults` reads."""
    return " ".join(map(str, faults))


def draw(rng: random.Random, shards: int, workers: int, kinds: Sequence[str], count: int) -> list[Fault]:
    """Return faults at random times during a job.

    Args:
        rng: The source of randomness.
        shards: The number of shards.
        workers: The number of workers.
        kinds: The kinds to choose from.
        count: The number of faults.
    """
    servers, trainers = [f"ps-{n}" for n in range(shards)], [f"worker-{n}" for n in range(workers)]
    first, last = (
        (0.1, 2.5) if rng.random() < 0.6 else ((begin := rng.uniform(0.3, 2.4)), begin + rng.choice((0.02, 0.1)))
    )
    return [_drawn(rng, rng.choice(list(kinds)), servers, trainers, (first, last)) for _ in range(count)]


def _drawn(
    rng: random.Random, kind: str, servers: list[str], workers: list[str], between_s: tuple[float, float]
) -> Fault:
    at = round(rng.uniform(*between_s), 6)
    if kind == "termall":
        return Fault(kind, "all", round(rng.uniform(0.3, 2.5), 6))
    anyone = rng.choice(servers if rng.random() < 0.5 else workers)
    if kind == "report":
        return Fault(kind, rng.choice(workers), rng.randint(1, 2))
    if kind == "lose":
        return Fault(kind, rng.choice([*workers, *servers[1:]]), rng.randint(1, 60))
    if kind == "powerat":
        return Fault(kind, rng.choice(servers), rng.randint(1, 2500))
    if kind == "killat":
        return Fault(kind, anyone, rng.randint(1, 2500 if anyone in servers else 700))
    if kind == "lie" and len(servers) > 1:  # of another incarnation: the other shards do not know the leases
        return Fault(kind, rng.choice(workers), 3 * rng.randint(1, 4))
    if kind in ("hang", "nan", "lie"):
        return Fault(
            kind, rng.choice(workers), rng.randint(1, 12), round(rng.uniform(1, 60), 3) if kind == "hang" else 0
        )
    if kind == "cut":
        pair = sorted(rng.sample([*servers, *workers], 2))
        return Fault(kind, "/".join(pair), at, round(rng.choice((0.3, 3.0, 15.0, 40.0)) * rng.uniform(0.5, 1.5), 3))
    if kind == "stop":
        return Fault(kind, anyone, at, round(rng.choice((0.5, 4.0, 15.0, 35.0)) * rng.uniform(0.5, 1.5), 3))
    if kind in DISK:
        return Fault(kind, "ps-0", at, round(rng.uniform(0.2, 5.0), 3))
    if kind == "clock":
        return Fault(kind, anyone, at, rng.choice((5.0, 3600.0)))
    if kind == "power":
        return Fault(kind, rng.choice(servers), at)
    return Fault(kind, anyone, at)
