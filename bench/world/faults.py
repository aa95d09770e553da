"""The faults of a simulated world: drawn from a seed, written as text, and executed at their times."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NETWORK, DISK, PROCESSES = ("reset", "cut"), ("full", "readonly"), ("kill", "killat", "stop", "term", "power")
KINDS = (*PROCESSES, *NETWORK, *DISK, "hang", "nan", "lie")


@dataclass(frozen=True)
class Fault:
    """A fault that is injected into a simulated job.

    Attributes:
        kind: One of `KINDS`.
        target: The name of the affected process, machine or pair of machines.
        at: The virtual time in seconds; for `killat` the number of an event of the process, for `hang` and `nan` the
            number of a step, for `lie` the number of a push.
        seconds: The duration of the fault, in seconds; 0 if it has none.
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
    return [_drawn(rng, rng.choice(list(kinds)), servers, trainers) for _ in range(count)]


def _drawn(rng: random.Random, kind: str, servers: list[str], workers: list[str]) -> Fault:
    at = round(rng.uniform(0.1, 2.5), 6)
    if kind == "lie" and len(servers) > 1:  # only shard 0 knows the leases, so that other shards cannot detect it
        kind = "kill"
    anyone = rng.choice(servers if rng.random() < 0.5 else workers)
    if kind == "killat":
        return Fault(kind, anyone, rng.randint(1, 2500 if anyone in servers else 700))
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
    if kind == "power":
        return Fault(kind, rng.choice(servers), at)
    return Fault(kind, anyone, at)
