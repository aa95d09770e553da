"""One shard of a recorded job, made anew, on its way through its calls."""

from __future__ import annotations

from collections import Counter

import numpy as np

from downpour.bench.replay.differences import Differences, Name, who
from downpour.bench.replay.record import Recorded
from downpour.ps.core.apply import UpdateOptions
from downpour.ps.core.buffers import Buffer
from downpour.ps.core.consistency import consistency_of
from downpour.ps.core.optimizer import Optimizer
from downpour.ps.core.push import Push, Result
from downpour.ps.core.schedules import schedule_of
from downpour.ps.core.shard import Shard
from downpour.ps.core.staleness import compensation_of
from downpour.ps.trace.call_log import Call


class RecordBroken(Exception):
    """The record contradicts itself, so that it cannot be followed to the end; the message says where."""


class Line:
    """A shard, the calls on it, its trace, and the versions that pushes to come were computed from.

    Attributes:
        shard: As a server makes it.
        stop: Calls to make.
        at: Calls made.
    """

    def __init__(self, recorded: Recorded, number: int, differences: Differences) -> None:
        """At version 0.

        Args:
            recorded: The run.
            number: Of the shard.
            differences: Told of every outcome and its record.

        Raises:
            RecordBroken: A push has two records.
        """
        self._number, self._trace = number, recorded.traces[number]
        self._calls = since_begin(recorded.calls[number])
        self._differences, self._concluded = differences, 0
        self._records = {name: index for index, name in enumerate(names_of(self._trace))}
        if len(self._records) != len(self._trace):
            raise RecordBroken(f"every push must have one record in shard {number}'s trace; one has two")
        self._needed: Counter[int] = Counter()
        self._held: dict[int, Buffer] = {}
        self.shard = shard_of(recorded, number)
        self.shard.on_outcome = self._on_outcome
        self.at, self.stop = 0, len(self._calls)

    def begin(self, known: set[Name], whole: bool) -> None:
        """Keeps to the pushes that all traces know: a run that was broken off may have some more at its end.

        Args:
            known: Those pushes.
            whole: Whether there may be no others.

        Raises:
            RecordBroken: There are.
        """
        for at, name in enumerate(self.pushes):
            if name is not None and name not in known:
                if whole:
                    where = f"call {at} on shard {self._number}"
                    raise RecordBroken(f"every push must be in the traces of all shards; {who(name)}, {where}, is not")
                self.stop = at
                break
        self._needed.update(int(self.record(name)["base_version"]) for name in known)
        self._keep()

    def end(self) -> None:
        """Compares what the trace has beyond the last outcome with nothing."""
        if self._concluded < len(self._trace):
            record = self._trace[self._concluded]
            where = f"record {self._concluded} of shard {self._number}'s trace"
            self._differences.missing(where, (int(record["worker"]), int(record["incarnation"]), int(record["seq"])))

    @property
    def pushes(self) -> list[Name | None]:
        """Which push each call is; None where it is another."""
        names, kinds = names_of(self._calls), self._calls["call"].tolist()
        return [name if kind == Call.PUSH else None for name, kind in zip(names, kinds, strict=True)]

    @property
    def names(self) -> set[Name]:
        """Pushes in the trace."""
        return set(self._records)

    def record(self, name: Name) -> np.void:
        """The record of a push."""
        record: np.void = self._trace[self._records[name]]
        return record

    @property
    def next_push(self) -> Name | None:
        """The push that the next call is; None if it is another."""
        record = self._calls[self.at]
        if record["call"] != Call.PUSH:
            return None
        return int(record["worker"]), int(record["incarnation"]), int(record["seq"])

    # ------------------------------------------------------------------ calls

    def call(self) -> None:
        """Makes the next call, which is no push."""
        record, shard = self._calls[self.at], self.shard
        call, worker = Call(int(record["call"])), int(record["worker"])
        if call in (Call.JOIN, Call.JOIN_RESTING):
            shard.join(worker, int(record["incarnation"]), call == Call.JOIN_RESTING)
        elif call == Call.PULL:
            shard.release(shard.pull(worker=worker)[0])
        elif call == Call.FLUSH:
            shard.flush()
        else:
            {Call.LEAVE: shard.leave, Call.REST: shard.rest, Call.RESUME: shard.resume}[call](worker)
        self._made()

    def push(self, push: Push, part: np.ndarray) -> None:
        """Makes the next call, which is this push of `float32[n + m]`."""
        self.shard.push(push, part)
        self._made()

    def _made(self) -> None:
        self.at += 1
        self._keep()

    # ------------------------------------------------------------------ versions

    def base(self, version: int) -> np.ndarray | None:
        """The weights of a version that a push to come was computed from; None if they are not there yet."""
        held = self._held.get(version)
        return held.array if held else None

    def used(self, version: int) -> None:
        """One push less is to come that was computed from a version."""
        self._needed[version] -= 1
        if not self._needed[version]:
            self.shard.release(self._held.pop(version))

    def _keep(self) -> None:
        version = self.shard.version
        if self._needed[version] and version not in self._held:
            self._held[version], _ = self.shard.pull()

    def _on_outcome(self, push: Push, result: Result) -> None:
        index, self._concluded = self._concluded, self._concluded + 1
        record = self._trace[index] if index < len(self._trace) else None
        where = f"record {index} of shard {self._number}'s trace"
        self._differences.concluded(where, record, push, result)


def shard_of(recorded: Recorded, number: int) -> Shard:
    """A shard as a server with the run's settings makes it, at version 0."""
    settings, part = recorded.settings, recorded.layout.cut(recorded.settings.shards)[number]
    state = recorded.initial[recorded.layout.trained :] if part.state else recorded.initial[:0]
    return Shard(
        np.concatenate((recorded.initial[part.start : part.stop], state)),
        Optimizer(settings.optimizer, settings.hyper, part.trained),
        consistency_of(settings.mode),
        compensation_of(settings.staleness),
        options=UpdateOptions(
            schedule_of(settings.schedule, settings.warm_up),
            settings.momentum_correction,
            settings.version_memory << 20,
        ),
    )


def since_begin(calls: np.ndarray) -> np.ndarray:
    """The calls since the weights were set that training began from: a worker that set others may have died."""
    begins = np.flatnonzero(calls["call"] == Call.BEGIN)
    return calls[begins[-1] + 1 :] if len(begins) else calls


def names_of(records: np.ndarray) -> list[Name]:
    """Worker, incarnation and seq of every record."""
    columns = (records[key].tolist() for key in ("worker", "incarnation", "seq"))
    return list(zip(*columns, strict=True))
