"""Runs a recorded script again, in as many processes, with servers that follow the recorded order, and compares."""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from downpour.bench.replay.record import CannotReplay
from downpour.bench.replay.script_run import RecordedScript, marked_calls
from downpour.deploy.launch.gpus import devices_here
from downpour.deploy.launch.launcher import GRACE_S, StopNow
from downpour.deploy.launch.plan import ProcessSpec
from downpour.deploy.launch.processes import end
from downpour.deploy.scripts.script_launcher import MODEL, Notes, ScriptLauncher, script_plan
from downpour.deploy.scripts.script_settings import SET_BY_FLAGS_OF_RUN
from downpour.protos.sentences.sentence import counted
from downpour.ps.control_plane.replay_target import weights_file
from downpour.ps.trace import format as trace
from downpour.ps.trace.files import per_shard

# Settings with which the servers of a replay differ: nothing is restored, and waiting for a turn is no silence.
OF_REPLAY: Mapping[str, Any] = {
    "checkpoint_every": "off", "worker_restarts": 0, "server_restarts": 0, "record": "on", "session_s": 600.0,
    "metrics_port": None, "tensorboard": False, "dashboard": False, "dry_run": False, "idle_timeout_s": 0.0,
}  # fmt: skip
CALL_TIMEOUT_S = 600.0
COMPARED = [name for name in trace.DTYPE.names or () if not name.endswith("_s")]  # all but times


class ReplayLauncher(ScriptLauncher):
    """A launcher whose script leaves no files, and which stops when the weights that are asked for are written."""

    def __init__(self, specs: Sequence[ProcessSpec], run_dir: Path, wanted: Sequence[Path]) -> None:
        """Prepare to run the processes of a replay.

        Args:
            specs: The processes.
            run_dir: The run directory of the replay.
            wanted: The files after which it stops; none to run the whole script.
        """
        super().__init__(specs, run_dir, Notes())
        self._wanted_files = wanted

    @property
    def interrupted(self) -> bool:
        """Whether a signal has ended the replay."""
        return self._stops.count > 0

    def _deliver_files(self) -> None:
        pass

    def _handle_stop_requests(self) -> None:
        if self.interrupted:  # a part of a replay proves nothing, so that there is nothing to save
            raise StopNow

    def _stop_now(self) -> None:
        end(list(self._processes.values()), GRACE_S)

    def _check_workers(self) -> None:
        if self._wanted_files and all(path.exists() for path in self._wanted_files):
            raise StopNow
        super()._check_workers()


@dataclass(frozen=True)
class ScriptVerdict:
    """The comparison of a replayed script with its run.

    Attributes:
        pushes: The number of pushes of shard 0 in the record.
        differing: The number of pushes, on all shards, whose record differs.
        first: The description of the first difference; empty if there is none.
        tensors: The number of tensors in the saved model: weights, moments and counts; None if there is no model.
        differing_tensors: The names of those that differ.
        environment: The differences between the environment of the run and the present one.
    """

    pushes: int
    differing: int
    first: str
    tensors: int | None
    differing_tensors: Sequence[str]
    environment: Sequence[str]

    @property
    def exact(self) -> bool:
        """Whether all bits are equal."""
        return not self.differing and not self.first and not self.differing_tensors


def run_again(recorded: RecordedScript, folder: Path, fit: int = 0, until: int | None = None) -> Path:
    """Run a recorded script again, and return the run directory of the replay.

    Args:
        recorded: The run.
        folder: An empty folder for the files of the replay.
        fit: The call of `fit` to which `until` refers, from 1; 0 for the last one.
        until: The version of shard 0 after which the replay stops; None to run the whole script.

    Raises:
        CannotReplay: There is no such version, or the script has not done what it did.
        KeyboardInterrupt: A signal has ended the replay.
    """
    order, run_dir = folder / "order", folder / "run"
    order.mkdir()
    (run_dir / "logs").mkdir(parents=True)
    calls = recorded.calls if until is None else marked_calls(recorded, fit or recorded.fits, until)
    for shard, records in enumerate(calls):
        np.save(order / per_shard("calls", shard), records)
    shards = range(recorded.settings.shards)
    wanted = [order / weights_file(shard) for shard in shards] if until is not None else []
    before = os.getcwd()
    os.chdir(recorded.record.folder)
    try:
        launcher = ReplayLauncher(_specs(recorded, order, run_dir), run_dir, wanted)
        code = launcher.run()
    finally:
        os.chdir(before)
    if launcher.interrupted:
        raise KeyboardInterrupt
    if any(not path.exists() for path in wanted) or (not wanted and code):
        raise CannotReplay(
            f"the script must do what it did in its run; it ended with status {code}: {launcher.last_error()}. Its "
            f"logs are in {run_dir / 'logs'}."
        )
    return run_dir


def _specs(recorded: RecordedScript, order: Path, run_dir: Path) -> list[ProcessSpec]:
    settings = recorded.settings.model_copy(update=dict(OF_REPLAY))
    specs = script_plan(settings, str(run_dir), recorded.record.script, shown=False, devices=devices_here(os.environ))
    hidden = SET_BY_FLAGS_OF_RUN
    found = []
    for spec in specs:
        if spec.role == "ps":
            spec = replace(spec, args=(*spec.args, f"--replay-of={order}"))
        else:
            args = ("--private-files", f"--call-timeout-s={CALL_TIMEOUT_S:g}", *spec.args)
            env = {**spec.env, "PYTHONHASHSEED": recorded.record.hash_seed}
            spec = replace(spec, args=args, env=env)
        found.append(replace(spec, set_by_flags=hidden))
    return found


def compare(recorded: RecordedScript, run_dir: Path, environment: Sequence[str] = ()) -> ScriptVerdict:
    """Compare the replay of a whole script with its run.

    Args:
        recorded: The run.
        run_dir: The run directory of the replay.
        environment: The differences between the environment of the run and the present one.
    """
    differing, first = 0, ""
    for shard, was in enumerate(recorded.traces):
        now = np.load(run_dir / per_shard("trace", shard), allow_pickle=False)
        if len(now) != len(was):
            first = (
                first or f"shard {shard} has received {counted(len(now), 'push', 'pushes')}, {len(was):,} in the record"
            )
        for at in _differing(was, now):
            differing += 1
            first = first or _difference(shard, was[at], now[at])
    model, again = recorded.path / MODEL, run_dir / MODEL
    tensors: int | None = None
    unequal: list[str] = []
    if model.exists():
        expected, found = _tensors(model), _tensors(again) if again.exists() else {}
        tensors = len(expected)
        unequal = [name for name, value in expected.items() if found.get(name) != value]
    return ScriptVerdict(len(recorded.traces[0]), differing, first, tensors, unequal, environment)


def _differing(was: np.ndarray, now: np.ndarray) -> list[int]:
    """Return the places of the records that differ in a bit of anything but the time."""
    count = min(len(was), len(now))
    unequal = np.zeros(count, bool)
    for name in COMPARED:
        a, b = (np.ascontiguousarray(records[name][:count]) for records in (was, now))
        unequal |= a.view(f"u{a.itemsize}") != b.view(f"u{b.itemsize}")
    return [int(at) for at in np.flatnonzero(unequal)]


def _difference(shard: int, was: np.void, now: np.void) -> str:
    parts = [f"{name} {was[name]} in the record, {now[name]} now" for name in COMPARED if was[name] != now[name]]
    return f"push {was['seq']} of worker {was['worker']}, epoch {was['epoch']}, on shard {shard}: {'; '.join(parts)}"


def _tensors(path: Path) -> dict[str, bytes]:
    """Return the content of every tensor in a `.keras` file, by name: weights, moments, counts and seeds."""
    found: dict[str, bytes] = {}

    def take(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = np.asarray(item[()]).tobytes()

    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as weights:
        weights.visititems(take)
    return found


def new_folder(recorded: RecordedScript) -> Path:
    """Return an empty folder for a replay: `replay` in the run directory, or else a temporary one."""
    folder = recorded.path / "replay"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir()
    except OSError:
        return Path(tempfile.mkdtemp(prefix="downpour-replay-"))
    return folder


def as_json(recorded: RecordedScript, verdict: ScriptVerdict, wall_s: float) -> str:
    """Return the verdict as JSON."""
    content = {
        "run": str(recorded.path), "mode": recorded.settings.mode, "pushes": verdict.pushes, "exact": verdict.exact,
        "passed": verdict.exact, "differing_records": verdict.differing, "first_difference": verdict.first,
        "tensors": verdict.tensors, "differing_tensors": list(verdict.differing_tensors),
        "nondeterminism": list(verdict.environment), "wall_s": wall_s,
    }  # fmt: skip
    return json.dumps(content, indent=2)


def report(recorded: RecordedScript, verdict: ScriptVerdict) -> str:
    """Return the verdict as text."""
    settings = recorded.settings
    lines = [
        f"{counted(verdict.pushes, 'push', 'pushes')} of {counted(settings.workers, 'worker')}, "
        f"{counted(settings.shards, 'shard')}, mode {settings.mode}, {counted(recorded.fits, 'call')} of fit: repeated"
    ]
    if verdict.first:
        differing = counted(verdict.differing, "record of a push differs", "records of pushes differ")
        lines += [f"{differing}; the first:", f"  {verdict.first}"]
    else:
        lines.append(
            "samples, outcome, staleness, learning rate, norm and loss of every push: as recorded, bit for bit"
        )
    if verdict.tensors is None:
        lines.append("final weights: the run has no model.keras to compare with")
    elif verdict.differing_tensors:
        names = ", ".join(verdict.differing_tensors[:5])
        lines.append(f"final model: {len(verdict.differing_tensors)} of {verdict.tensors} tensors differ: {names}")
    else:
        lines.append(f"final model: all {verdict.tensors} tensors identical, bit for bit")
    if verdict.environment and not verdict.exact:
        lines += ["equal bits cannot be expected:", *(f"  {each}" for each in verdict.environment)]
    return "\n".join(lines)
