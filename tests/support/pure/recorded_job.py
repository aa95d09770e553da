"""A recorded job without processes: real shards, minimal workers, and an order drawn from a seed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from downpour.bench.replay.differences import Computed
from downpour.bench.replay.record import Recorded
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.layout import STATE, TRAINED, Layout
from downpour.ps.config import ServerSettings
from downpour.ps.config_change import Change, apply_change, new_change
from downpour.ps.data_plane.shard_commands import ShardCommands
from downpour.ps.data_plane.shard_runtime import ShardRuntime
from downpour.ps.data_plane.snapshot import ShardState, Snapshot
from downpour.ps.trace import call_log as calls
from downpour.ps.trace import format as trace

LAYOUT = Layout.of([("w", (11,), TRAINED), ("v", (3, 2), TRAINED), ("moving", (4,), STATE)])
N = LAYOUT.trained


def compute(record: Any, flat: np.ndarray) -> Computed:
    """Return the gradient of a worker: a nonlinear function of the weights, the worker and the samples."""
    worker, seq, start, stop = (int(record[key]) for key in ("worker", "seq", "start", "stop"))
    drawn = np.random.default_rng((worker, seq, start)).standard_normal(LAYOUT.size).astype(np.float32)
    gradient = np.sin(3 * flat + np.float32(worker)) + drawn / np.float32(4)
    gradient[N:] = np.float32(0.1) * (drawn[N:] - flat[N:])
    norm, loss = float(np.linalg.norm(gradient[:N])), float(np.abs(flat).sum(dtype=np.float64))
    finite = seq % 13 != 0
    return Computed(gradient, norm if finite else float("nan"), loss, stop - start, finite=finite)


class RecordedJob:
    """Workers that push to shards in a possible order; some die, rest or join late."""

    def __init__(self, shards: int = 1, seed: int = 0, **settings: Any) -> None:
        self.settings = ServerSettings(**{"shards": shards, "workers": 3, "learning_rate": 0.05, **settings})
        self.random = np.random.default_rng(seed)
        self.initial: dict[int, ShardState] = {}
        self.hosts = [ShardRuntime(number) for number in range(shards)]
        self.commands = [ShardCommands(host) for host in self.hosts]
        self.versions: list[np.ndarray] = []  # of the first shard's weights
        self.view, self.members = 0, dict[int, pb.Member]()
        self.seq: dict[int, int] = {}
        self.due: dict[int, list[tuple[int, pb.Request, bytes]]] = {}  # pushes on their way, by worker
        self.incarnations = dict[int, int]()
        self.changes: list[Change] = []
        slices = LAYOUT.cut(shards)
        initial = self.random.standard_normal(LAYOUT.size).astype(np.float32)
        command = pb.ShardCommand(settings=self.settings.model_dump_json(), layout=LAYOUT.to_proto())
        for number, part in enumerate(slices):
            self.commands[number].execute(command)
            state = initial[N:] if part.state else initial[:0]
            self.initialise(number, np.concatenate((initial[part.start : part.stop], state)))
        self.flat = initial
        self.note()

    def initialise(self, number: int, weights: np.ndarray) -> None:
        """Set version 0 of a shard."""
        self.hosts[number].initialise(weights.data.cast("B"))
        for output in self.hosts[number].outbox:
            if isinstance(output, Snapshot):
                self.initial[number] = output.state
        self.hosts[number].outbox.clear()

    def note(self) -> None:
        """Record every version of the weights of shard 0."""
        shard = self.hosts[0].trained_shard()
        while len(self.versions) <= shard.version:
            buffer, _ = shard.pull()
            self.versions.append(buffer.array.copy())
            shard.release(buffer)

    def tell(self, **changes: Any) -> None:
        """Send the view of the members to every shard."""
        self.view += 1
        for commands in self.commands:
            commands.execute(pb.ShardCommand(view=pb.View(number=self.view, members=self.members.values()), **changes))
        self.note()

    def join(self, worker: int) -> None:
        self.incarnations[worker] = self.incarnations.get(worker, 0) + 1
        session = 100 * self.incarnations[worker] + worker
        self.members[worker] = pb.Member(worker=worker, incarnation=self.incarnations[worker], session=session)
        self.seq[worker] = 0
        self.tell()
        self.compute(worker)

    def leave(self, worker: int) -> None:
        """Let a worker die that has no push on some shards only."""
        del self.members[worker]
        self.due.pop(worker, None)
        self.tell()

    def rest(self, worker: int, resting: bool) -> None:
        self.members[worker].resting = resting
        self.tell()

    def compute(self, worker: int) -> None:
        """Pull from every shard and compute a gradient, whose pushes are then in flight."""
        slices, parts, bases = LAYOUT.cut(len(self.hosts)), [], []
        for host in self.hosts:
            buffer, version = host.pull(pb.Request(kind=pb.PULL), worker)
            parts.append(buffer.array.copy())
            bases.append(version)
            host.trained_shard().release(buffer)
        flat = np.concatenate([part[: s.trained] for part, s in zip(parts, slices, strict=True)])
        flat = np.concatenate((flat, parts[0][slices[0].trained :]))
        self.seq[worker] += 1
        start = int(self.random.integers(0, 50))
        stop = start + int(self.random.integers(1, 9))
        record = {"worker": worker, "seq": self.seq[worker], "start": start, "stop": stop}
        found = compute(record, flat)
        self.due[worker] = []
        for number, (part, base) in enumerate(zip(slices, bases, strict=True)):
            header = pb.Request(
                kind=pb.PUSH_PULL, worker=worker, incarnation=self.incarnations[worker], seq=self.seq[worker],
                base_version=base, generation=1, codec="float32", norm=found.norm, nonfinite=not found.finite,
                samples=stop - start, loss=found.loss, start=start, stop=stop, steps=1,
            )  # fmt: skip
            vector = found.vector[part.start : part.stop]
            vector = np.concatenate((vector, found.vector[N:])) if part.state else vector
            self.due[worker].append((number, header, vector.tobytes() if found.finite else b""))

    def step(self) -> None:
        """Let a random worker that has pushes in flight deliver one of them to its shard."""
        able = [worker for worker in self.members if self.due.get(worker)]
        if not able:
            return
        worker = int(self.random.choice(able))
        due = self.due[worker]
        number, header, payload = due.pop(int(self.random.integers(len(due))))
        self.hosts[number].push(header, memoryview(payload))
        self.note()

    def go_on(self) -> None:
        """Pull weights and compute a gradient for every worker that may proceed."""
        for worker in self.members:
            free = all(host.trained_shard().may_proceed(worker) for host in self.hosts)
            if self.due.get(worker) == [] and free and not self.members[worker].resting:
                self.compute(worker)

    def change(self, **wanted: Any) -> None:
        """Change settings of the job at a cut after the pushes that have arrived; none may be on its way."""
        settings = self.changed_settings
        change = new_change(settings, wanted, len(self.changes) + 1)
        if change is None:
            return
        self.changes.append(change)
        text = self.changed_settings.model_dump_json()
        cut = pb.Cut(number=len(self.changes), change=pb.SettingsChange(number=change.number, settings=text))

        async def take() -> None:
            for commands in self.commands:
                commands.execute(pb.ShardCommand(hold=cut.number))
                commands.execute(pb.ShardCommand(cut=cut))

        asyncio.run(take())
        for host in self.hosts:
            for output in host.outbox:
                if isinstance(output, Snapshot):
                    output.state.release()
            host.outbox.clear()
        self.note()

    @property
    def changed_settings(self) -> ServerSettings:
        """The settings of the job after its changes."""
        settings = self.settings
        for change in self.changes:
            settings = apply_change(settings, change)
        return settings

    def whole(self, worker: int) -> bool:
        """Return whether no push of the worker has reached some shards only."""
        return len(self.due.get(worker, [])) in (0, len(self.hosts))

    def run(self, steps: int = 120, changes: Sequence[dict[str, Any]] = ()) -> Recorded:
        """Train while workers join and leave and settings change, and return the record of the run."""
        waiting = list(changes)
        for worker in range(3):
            self.join(worker)
        for step in range(steps):
            self.step()
            self.go_on()
            if waiting and step > steps * (len(changes) - len(waiting) + 1) // (len(changes) + 1):
                while not all(self.whole(each) for each in self.members):
                    self.step()
                self.change(**waiting.pop(0))
                self.go_on()
            worker = int(self.random.integers(0, 4))
            if step % 10 == 9 and worker not in self.members:
                self.join(worker)
            elif step % 10 == 5 and len(self.members) > 1 and worker in self.members and self.whole(worker):
                self.leave(worker)
            elif step % 10 == 2 and worker in self.members and self.due.get(worker) == []:
                self.rest(worker, not self.members[worker].resting)
        while any(self.due.get(worker) for worker in self.members):
            self.step()
        self.tell(flush=True)
        return self.recorded()

    def recorded(self) -> Recorded:
        facts: dict[tuple[int, int], dict[str, str]]
        facts = {(w, i): {} for w, incarnations in self.incarnations.items() for i in range(1, incarnations + 1)}
        traces = [np.frombuffer(host.records.take(), trace.DTYPE) for host in self.hosts]
        called = [np.frombuffer(host.calls.take(), calls.DTYPE) for host in self.hosts]
        return Recorded(
            Path("nowhere"), self.settings, LAYOUT, self.flat, traces, called, facts, "", tuple(self.changes)
        )

    @property
    def weights(self) -> np.ndarray:
        """Return the weights `float32[n + m]` of all shards."""
        arrays = [host.trained_shard().pull()[0].array for host in self.hosts]
        slices = LAYOUT.cut(len(self.hosts))
        trained = [array[: part.trained] for array, part in zip(arrays, slices, strict=True)]
        return np.concatenate([*trained, arrays[0][slices[0].trained :]])
