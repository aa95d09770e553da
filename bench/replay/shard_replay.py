"""The replay of one shard: the recorded calls are repeated on a new shard with the same settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from downpour.bench.replay.differences import Differences, Name, push_text
from downpour.bench.replay.record import Recorded
from downpour.ps.config_change import apply_change
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
    """The record contradicts itself and cannot be replayed to its end; the message says where."""


class ShardReplay:
    """A shard, the recorded calls, its trace, and the versions that the remaining pushes were computed from.

    Attributes:
        shard: The shard, built as a server builds it.
        stop: The number of calls to repeat.
        at: The number of calls repeated so far.
    """

    def __init__(self, recorded: Recorded, number: int, differences: Differences) -> None:
        """Build the shard at version 0.

        Args:
            recorded: The run.
            number: The number of the shard.
            differences: The object that compares every outcome with its record.

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
        self._settings, self._changes = recorded.settings, recorded.changes
        self.shard = shard_of(recorded, number, self._on_outcome)
        self.at, self.stop = 0, len(self._calls)

    def begin(self, known: set[Name], whole: bool) -> None:
        """Restrict the replay to the pushes that all traces contain; an interrupted run may have more at its end.

        Args:
            known: The pushes that all traces contain.
            whole: Whether other pushes are an error.

        Raises:
            RecordBroken: There are other pushes, although `whole` is set.
        """
        for at, name in enumerate(self.pushes):
            if name is not None and name not in known:
                if whole:
                    where = f"call {at} on shard {self._number}"
                    raise RecordBroken(
                        f"every push must be in the traces of all shards; {push_text(name)}, {where}, is not"
                    )
                self.stop = at
                break
        self._needed.update(int(self.record(name)["base_version"]) for name in known)
        self._keep()

    def end(self) -> None:
        """Count a record of the trace after the last outcome as a difference."""
        if self._concluded < len(self._trace):
            record = self._trace[self._concluded]
            where = f"record {self._concluded} of shard {self._number}'s trace"
            self._differences.missing(where, (int(record["worker"]), int(record["incarnation"]), int(record["seq"])))

    @property
    def pushes(self) -> list[Name | None]:
        """The push of each call; None for calls of another kind."""
        names, kinds = names_of(self._calls), self._calls["call"].tolist()
        return [name if kind == Call.PUSH else None for name, kind in zip(names, kinds, strict=True)]

    @property
    def names(self) -> set[Name]:
        """The pushes in the trace."""
        return set(self._records)

    def record(self, name: Name) -> np.void:
        """Return the record of a push."""
        record: np.void = self._trace[self._records[name]]
        return record

    @property
    def next_push(self) -> Name | None:
        """The push of the next call; None if the call is of another kind."""
        record = self._calls[self.at]
        if record["call"] != Call.PUSH:
            return None
        return int(record["worker"]), int(record["incarnation"]), int(record["seq"])

    # ------------------------------------------------------------------ calls

    def call(self) -> None:
        """Repeat the next call, which is not a push."""
        record, shard = self._calls[self.at], self.shard
        call, worker = Call(int(record["call"])), int(record["worker"])
        if call in (Call.JOIN, Call.JOIN_RESTING):
            shard.join(worker, int(record["incarnation"]), call == Call.JOIN_RESTING)
        elif call == Call.PULL:
            shard.release(shard.pull(worker=worker)[0])
        elif call == Call.FLUSH:
            shard.flush()
        elif call == Call.CHANGE:
            self._change(int(record["seq"]))
        else:
            {Call.LEAVE: shard.leave, Call.REST: shard.rest, Call.RESUME: shard.resume}[call](worker)
        self._made()

    def _change(self, number: int) -> None:
        if not 1 <= number <= len(self._changes):
            raise RecordBroken(
                f"changes.json must contain change {number} of the settings; it has {len(self._changes)}"
            )
        settings = self._settings
        for change in self._changes[:number]:
            settings = apply_change(settings, change)
        mode = consistency_of(settings.mode, self._number)
        compensation = compensation_of(settings.staleness_policy)
        self.shard.reconfigure(mode, compensation, settings.effective_learning_rate)

    def push(self, push: Push, part: np.ndarray) -> None:
        """Repeat the next call, which is a push of `part`, the shard's part of the vector."""
        self.shard.push(push, part)
        self._made()

    def _made(self) -> None:
        self.at += 1
        self._keep()

    # ------------------------------------------------------------------ versions

    def base(self, version: int) -> np.ndarray | None:
        """Return the weights of a version that a remaining push was computed from; None if not reached yet."""
        held = self._held.get(version)
        return held.array if held else None

    def used(self, version: int) -> None:
        """Count a push computed from a version; after the last one, its weights are released."""
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
        self._differences.compare_outcome(where, record, push, result)


def shard_of(recorded: Recorded, number: int, on_outcome: Callable[[Push, Result], None]) -> Shard:
    """Build a shard at version 0, as a server with the run's settings builds it."""
    settings, part = recorded.settings, recorded.layout.cut(recorded.settings.shards)[number]
    state = recorded.initial[recorded.layout.trained :] if part.state else recorded.initial[:0]
    return Shard(
        np.concatenate((recorded.initial[part.start : part.stop], state)),
        Optimizer(settings.optimizer, settings.hyper, part.trained),
        consistency_of(settings.mode, number),
        compensation_of(settings.staleness_policy),
        on_outcome,
        options=UpdateOptions(
            schedule_of(settings.schedule, settings.warm_up),
            settings.momentum_correction,
            settings.version_memory << 20,
            version_depth=2 if settings.overlap else 1,
        ),
    )


def since_begin(calls: np.ndarray) -> np.ndarray:
    """Return the calls after the initial weights were set for the last time; a worker that set others may have died."""
    begins = np.flatnonzero(calls["call"] == Call.BEGIN)
    return calls[begins[-1] + 1 :] if len(begins) else calls


def names_of(records: np.ndarray) -> list[Name]:
    """Return worker, incarnation and seq of every record."""
    columns = (records[key].tolist() for key in ("worker", "incarnation", "seq"))
    return list(zip(*columns, strict=True))
