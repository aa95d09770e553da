"""The faults of a simulated world: drawn from a seed, written as text, and executed at their times."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NETWORK, DISK, PROCESSES = (
    ("reset", "cut", "lose", "resetcall"),
    ("full", "readonly", "damage"),
    ("kill", "killat", "killcall", "stop", "term", "termall", "power", "powerat"),
)
CALLS = ("resetcall", "killcall", "stopcall")  # faults when a message of a method arrives
SEVERAL = ("kill", "power", "stop", "reset", "term")  # kinds that may affect several processes at the same time
SEVERAL_SHARE = 0.3  # fraction of these faults that do
TRAINING_S = 0.4, 1.4  # virtual times at which most jobs begin to train, and half of them have ended
LATEST_S = (TRAINING_S[1], 2.5)  # times of the latest faults
ALL, SERVERS, WORKERS = "all", "servers", "workers"
STOPPED_S = (0.5, 4.0, 15.0, 35.0)  # mean durations for which a process is stopped, or a step hangs
SERVERS_SHARE = 0.3  # fraction of the partitions that separate two servers, if there are several
REQUESTS = ("checkpoint", "pause", "change")  # of users, which come at bad times
STOPPED_CALL_S = (6.0, 15.0)  # mean durations for which a process is stopped at a message; a cut is abandoned after 5 s
# The text of the faults seeds their injection: under another name, a kind would give a recorded seed another course.
DRAWN = (*PROCESSES, *NETWORK, *DISK, *REQUESTS, "clock", "hang", "nan", "lie", "report")  # by seeds without a profile
KINDS = (*DRAWN, "stopcall")


@dataclass(frozen=True)
class Fault:
    """A fault that is injected into a simulated job.

    Attributes:
        kind: One of `KINDS`.
        target: The name of the affected process or machine; several are separated by a slash. For a fault of a call,
            the process and the method, `PROCESS/METHOD`.
        at: The virtual time in seconds; for `killat` and `powerat` the number of an event of the process, for `hang`
            and `nan` that of a step, for `lie` that of a push, for `report` that of a report, for `lose` that of a
            message from a server, for `resetcall`, `killcall` and `stopcall` that of a message of the method.
        seconds: The duration of the fault, or the distance by which a clock jumps, in seconds; 0 if it has none.
    """

    kind: str
    target: str
    at: float
    seconds: float = 0.0

    def __str__(self) -> str:
        """Return the fault as `KIND:TARGET@AT`, followed by `+SECONDS` if it lasts."""
        return f"{self.kind}:{self.target}@{self.at:.9g}" + (f"+{self.seconds:.9g}" if self.seconds else "")

    @property
    def targets(self) -> list[str]:
        """The names of the affected processes."""
        return self.target.split("/")[: 1 if self.kind in CALLS else None]

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


def draw(
    rng: random.Random, shards: int, workers: int, kinds: Sequence[str], count: int, among: str = ALL
) -> list[Fault]:
    """Return faults at random times during a job.

    Args:
        rng: The source of randomness.
        shards: The number of shards.
        workers: The number of workers.
        kinds: The kinds to choose from.
        count: The number of faults.
        among: The processes that the faults affect: `ALL`, `SERVERS` if there are several servers, or `WORKERS`.
    """
    servers = [] if among == WORKERS else [f"ps-{n}" for n in range(shards)]
    trainers = [] if among == SERVERS and shards > 1 else [f"worker-{n}" for n in range(workers)]
    last = rng.choice(LATEST_S)
    if rng.random() < 0.6:
        between_s = 0.1 if last > TRAINING_S[1] else TRAINING_S[0], last
    else:
        begin = rng.uniform(0.3, last)
        between_s = begin, begin + rng.choice((0.02, 0.1))
    return [_drawn(rng, rng.choice(list(kinds)), servers, trainers, between_s) for _ in range(count)]


def _drawn(
    rng: random.Random, kind: str, servers: list[str], workers: list[str], between_s: tuple[float, float]
) -> Fault:
    at = round(rng.uniform(*between_s), 6)
    anyone = rng.choice(servers if servers and (not workers or rng.random() < 0.5) else workers)
    if kind in _NUMBERED:
        return _numbered(rng, kind, anyone, servers, workers)
    if kind == "termall":
        return Fault(kind, "all", round(rng.uniform(0.3, 2.5), 6))
    if kind == "cut":
        alone = len(servers) > 1 and (not workers or rng.random() < SERVERS_SHARE)
        # Servers exchange messages with shard 0 only.
        pair = ["ps-0", rng.choice(servers[1:])] if alone else sorted(rng.sample([*servers, *workers], 2))
        return Fault(kind, "/".join(pair), at, round(rng.choice((0.3, 3.0, 15.0, 40.0)) * rng.uniform(0.5, 1.5), 3))
    if kind in DISK:
        return Fault(kind, "ps-0", at, 0.0 if kind == "damage" else round(rng.uniform(0.2, 5.0), 3))
    if kind in REQUESTS:
        return Fault(kind, "ps-0", at, round(rng.uniform(0.2, 5.0), 3) if kind == "pause" else 0.0)
    if kind == "clock":
        return Fault(kind, anyone, at, rng.choice((5.0, 3600.0)))
    seconds = _stopped_s(rng, STOPPED_S) if kind == "stop" else 0.0
    among = servers if kind == "power" else [*servers, *workers]
    if len(among) > 1 and rng.random() < SEVERAL_SHARE:
        return Fault(kind, "/".join(sorted(rng.sample(among, rng.randint(2, len(among))))), at, seconds)
    return Fault(kind, rng.choice(servers) if kind == "power" else anyone, at, seconds)


_NUMBERED = ("report", "lose", "powerat", "killat", *CALLS, "hang", "nan", "lie")
# The methods whose messages a process sends or receives, each with the largest number of a message that is drawn.
_OF_WORKERS = {
    "Describe": 1, "Register": 3, "Ready": 6, "Heartbeat": 6, "Lease": 16, "Exchange": 60, "Report": 4, "Upload": 6,
    "Leave": 2,
}  # fmt: skip
_OF_SHARDS = {"ShardLink": 40, "Exchange": 60}
RARE = ("Upload", "Report")  # methods that one worker calls once or twice in a job; they are drawn more often


def _numbered(rng: random.Random, kind: str, anyone: str, servers: list[str], workers: list[str]) -> Fault:
    """Return a fault that happens at an event, a step or a message of its process with some number."""
    if kind == "stopcall" and len(servers) > 1:  # a shard that is stopped between the messages of a cut
        number = rng.randint(4, _OF_SHARDS["ShardLink"])
        return Fault(kind, f"{rng.choice(servers[1:])}/ShardLink", number, _stopped_s(rng, STOPPED_CALL_S))
    if kind in CALLS:
        methods = _OF_WORKERS if anyone in workers else _OF_SHARDS if anyone != "ps-0" else _OF_WORKERS | _OF_SHARDS
        method = rng.choice([*methods, *(name for name in RARE if name in methods)])
        return Fault(kind, f"{anyone}/{method}", rng.randint(1, methods[method]))
    if kind == "report":
        return Fault(kind, rng.choice(workers), rng.randint(1, 2))
    if kind == "lose":
        return Fault(kind, rng.choice([*workers, *servers[1:]]), rng.randint(1, 60))
    if kind == "powerat":
        return Fault(kind, rng.choice(servers), rng.randint(1, 2500))
    if kind == "killat":
        return Fault(kind, anyone, rng.randint(1, 2500 if anyone in servers else 700))
    if kind == "lie" and len(servers) > 1:  # no claims of leases, which the other shards do not know
        return Fault(kind, rng.choice(workers), 5 * rng.randint(0, 2) + rng.choice((3, 4, 5)))
    seconds = _stopped_s(rng, STOPPED_S) if kind == "hang" else 0.0
    return Fault(kind, rng.choice(workers), rng.randint(1, 12), seconds)


def _stopped_s(rng: random.Random, means_s: Sequence[float]) -> float:
    return round(rng.choice(means_s) * rng.uniform(0.5, 1.5), 3)
