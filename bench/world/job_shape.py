"""The description of a simulated job, and its result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from downpour.bench.world.faults import Fault


@dataclass(frozen=True)
class JobShape:
    """The settings, the size and the faults of a simulated job.

    Attributes:
        settings: The settings of the job.
        samples: The number of samples in an epoch.
        faults: The faults that are injected.
        model_padding_bytes: The size by which the uploaded model exceeds its weights.
        slow_links: Whether the latencies between machines differ.
        restarts: Whether processes that died are started again.
        restart_s: The mean time until a process that died is started again: short for a launcher, long for an operator.
    """

    settings: dict[str, Any]
    samples: int
    faults: tuple[Fault, ...] = ()
    model_padding_bytes: int = 0
    slow_links: bool = False
    restarts: bool = True
    restart_s: float = 0.3


@dataclass
class JobResult:
    """The result of a simulated job.

    Attributes:
        problems: The violations of invariants; empty if every check passed.
        digest: A checksum of all events, the trace and the weights.
        virtual_s: The duration of the job in virtual time.
        events: The number of events.
        status: The exit code of the coordinator; None if it has not ended.
        journal: The newest lines of the journal.
    """

    problems: list[str]
    digest: int
    virtual_s: float
    events: int
    status: int | None
    journal: list[str] = field(default_factory=list)
