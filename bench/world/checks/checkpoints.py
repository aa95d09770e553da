"""Checks every checkpoint when it is written: all shards contain the updates that its ledger counts as used."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from downpour.bench.world.checks.integer_weights import applications
from downpour.bench.world.checks.traits import JobTraits
from downpour.bench.world.system.disk import VirtualDisk
from downpour.bench.world.system.scheduler import World
from downpour.ps.config import ServerSettings
from downpour.ps.trace.files import per_shard
from downpour.ps.trace.format import DTYPE

NAME = re.compile(r"/run/checkpoints/checkpoint-(\d{8})\.safetensors")


def newest_checkpoint(disk: VirtualDisk, before: str = "~") -> str | None:
    """Return the path of the newest checkpoint on a disk that is older than `before`; None if there is none."""
    return max((path for path in disk.names if NAME.fullmatch(path) and path < before), default=None)


class CheckpointCheck:
    """Reads the checkpoints of a job."""

    def __init__(self, world: World, samples: int, settings: ServerSettings, traits: JobTraits) -> None:
        """Create the check of the checkpoints of one job.

        Args:
            world: The world that receives the violations.
            samples: The number of samples in an epoch.
            settings: The settings of the job.
            traits: The properties of the job.
        """
        self._world, self._samples, self._settings = world, samples, settings
        self._sums, self._most = traits.sums, traits.most_samples
        self._versions: list[int] = []  # of the newest checkpoint, by shard
        self._damaged: set[str] = set()

    def version_of(self, shard: int) -> int:
        """Return the version of a shard in the newest checkpoint, to which any later generation must return."""
        return self._versions[shard] if self._versions else 0

    def damaged(self, disk: VirtualDisk, path: str) -> None:
        """Expect later generations to begin with the newest whole checkpoint: the one at `path` has been damaged."""
        self._damaged.add(path)
        whole = newest_checkpoint(disk)
        while whole is not None and whole in self._damaged:
            whole = newest_checkpoint(disk, whole)
        self._versions = []
        if whole is not None:
            _, facts = _content(bytes(disk.names[whole].content))
            self._versions = [own["version"] for own in facts["shards"]]

    def check(self, disk: VirtualDisk) -> None:
        """Check the newest checkpoint on a disk."""
        found = newest_checkpoint(disk)
        if found is None:
            self._world.problem("a checkpoint was written, and there is no file")
            return
        self._damaged.discard(found)
        vectors, facts = _content(bytes(disk.names[found].content))
        self._versions = [own["version"] for own in facts["shards"]]
        used, order = self._used(facts["ledger"]), self._orders()
        allowed = facts["partial_pushes"] * self._most
        for shard, own in enumerate(facts["shards"]):
            trace = self._trace(disk, shard)
            if len(trace) < own["records"]:  # the disk is full, or the records of a shard are under way
                continue
            covered = self._covered(trace[: own["records"]])
            self._compare(f"{found}: the trace of shard {shard}", covered, used, allowed)
            if self._sums and not facts["metrics"]["dropped"]:
                counts = applications(vectors["trained"], self._settings.shards)[shard]
                expected = sum(
                    np.bincount(order[epoch][np.flatnonzero(used[epoch])], minlength=self._samples)
                    for epoch in range(self._settings.epochs)
                )
                if int(np.abs(counts - expected).sum()) > allowed:
                    self._world.problem(f"{found}: the weights of shard {shard} are not those of the used samples")
        newest = facts["incarnations"]
        for record in self._trace(disk, 0)[: facts["shards"][0]["records"]]:
            if int(record["incarnation"]) > newest.get(str(int(record["worker"])), 0):
                self._world.problem(f"{found}: an incarnation of worker {record['worker']} is not known")
                return

    def _compare(self, where: str, covered: np.ndarray, used: np.ndarray, allowed: int) -> None:
        if (covered > 1).any():
            self._world.problem(f"{where} has several outcomes of a sample")
        elif (covered > used).any():
            self._world.problem(f"{where} has {int((covered > used).sum())} samples that the ledger counts as free")
        elif int((covered < used).sum()) > allowed:
            self._world.problem(
                f"{where} lacks {int((covered < used).sum())} samples; at most {allowed} may be missing"
            )

    def _used(self, ledger: dict[str, Any]) -> np.ndarray:
        """Return for every position of every epoch whether it is used, `int64[epochs, samples]`."""
        used = np.zeros((self._settings.epochs, self._samples), np.int64)
        used[: ledger["epoch"]] = 1
        if ledger["epoch"] < self._settings.epochs:
            used[ledger["epoch"], : ledger["position"]] = 1
        for epoch, start, stop in ledger["unused"]:
            used[epoch, start:stop] = 0
        return used

    def _covered(self, trace: np.ndarray) -> np.ndarray:
        covered = np.zeros((self._settings.epochs, self._samples), np.int64)
        for epoch, start, stop in zip(
            trace["epoch"].tolist(), trace["start"].tolist(), trace["stop"].tolist(), strict=True
        ):
            covered[epoch, start:stop] += 1
        return covered

    def _orders(self) -> Sequence[np.ndarray]:
        seeds = [(self._settings.seed, epoch) for epoch in range(self._settings.epochs)]
        return [np.random.default_rng(seed).permutation(self._samples) for seed in seeds]

    def _trace(self, disk: VirtualDisk, shard: int) -> np.ndarray:
        inode = disk.names.get(f"/run/{per_shard('trace', shard)}")
        trace: np.ndarray = np.zeros(0, DTYPE) if inode is None else np.load(io.BytesIO(bytes(inode.content)))
        return trace


def _content(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the vectors and the facts in a file of the format safetensors."""
    length = int.from_bytes(data[:8], "little")
    header, start = json.loads(data[8 : 8 + length]), 8 + length
    metadata = header.pop("__metadata__")
    vectors = {
        name: np.frombuffer(data[start + each["data_offsets"][0] : start + each["data_offsets"][1]], np.float32)
        for name, each in header.items()
    }
    return vectors, json.loads(metadata["facts"])
