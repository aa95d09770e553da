"""The run directory: configuration, trace, model and summary of one job. Only the coordinator writes to it."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from downpour.protos.logs import reason_of
from downpour.protos.sentences.sentence import sentence
from downpour.protos.system import disk
from downpour.protos.system.json_text import json_text
from downpour.ps.config import ServerSettings
from downpour.ps.config_change import Change
from downpour.ps.storage.atomic_file import atomic_write
from downpour.ps.storage.checkpoint_file import newest, numbers, path_of
from downpour.ps.storage.ended_run import has_ended
from downpour.ps.trace import call_log as calls
from downpour.ps.trace.files import TraceFiles

CHANGES = "changes.json"  # the changes of the settings while the job ran
COMPLETED_KEPT = 64  # calls of a script's `fit` whose weights are kept
ADDRESS = "address"  # the file with the address of the coordinator, as long as it runs
LARGEST_GENERATION = 1 << 62  # of a file that this program wrote
DIGITS = 32  # more than such a number has


def new_run_directory(runs_dir: Path, model: str, now: datetime | None = None) -> Path:
    """Create `runs_dir/<UTC time>-<model>`, with a number appended if it exists, and return its path."""
    stamp = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
    name = f"{stamp}-{re.sub(r'[^A-Za-z0-9_.-]+', '-', model).strip('-.') or 'model'}"
    for attempt in range(1, 1000):
        path = runs_dir / (name if attempt == 1 else f"{name}-{attempt}")
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            continue
    raise FileExistsError(f"{runs_dir / name} and 998 variants of it exist already: clear the runs folder.")


def run_directory(settings: ServerSettings) -> Path:
    """Return the directory of a server's run.

    This is `--run-dir` if it is given. Otherwise, with `--resume`, it is the newest run in the runs folder if that has
    the same settings and has not ended. In all other cases it is a new directory.

    Raises:
        UnusableDirectory: A new directory cannot be created.
    """
    if settings.run_dir:
        return disk.path(settings.run_dir)
    runs_dir = disk.path(settings.runs_dir)
    unfinished = _unfinished(runs_dir / "latest", settings) if settings.resume else None
    with _creating("--runs-dir"):
        return unfinished or new_run_directory(runs_dir, settings.model)


def _unfinished(latest: Path, settings: ServerSettings) -> Path | None:
    """Return the run that `latest` points to, if it can be resumed."""
    if not latest.is_dir():
        return None
    path = latest.parent / latest.resolve().name
    if has_ended(path / "summary.json", settings.epochs):
        return None
    begun = (_read_json(path / "config.json") or {}).get("settings", {})
    wanted = settings.model_dump(mode="json")
    job = [name for group in ("model and data", "asynchrony", "optimizer") for name in settings.groups[group]]
    return path if all(begun.get(name, wanted[name]) == wanted[name] for name in job) else None


def read_changes(path: Path) -> list[Change]:
    """Return the changes of the settings of a run while it ran; none if their file is missing.

    Raises:
        UnusableDirectory: The file is damaged.
    """
    file = path / CHANGES
    if not file.exists():
        return []
    try:
        return [Change.model_validate(each) for each in (_read_json(file) or {})["changes"]]
    except (KeyError, TypeError, ValueError) as error:
        raise UnusableDirectory(
            f"{file} must contain the changes of the settings of this run; it is damaged: {error}. Copy it again, or "
            "remove it to continue with the settings that the run was started with."
        ) from error


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


class UnusableDirectory(Exception):
    """A run directory cannot be used; the message says what to do."""


@contextmanager
def _creating(flag: str) -> Iterator[None]:
    """Turn the error of a folder that cannot be created within the block into one that names the flag."""
    try:
        yield
    except OSError as error:
        raise UnusableDirectory(
            f"{flag} must be a folder in which files can be created; {reason_of(error)}. Choose another folder."
        ) from error


class RunDirectory:
    """The files of one run.

    Attributes:
        path: The directory.
        traces: The traces of all shards.
        calls: The call logs of all shards.
        notes: Messages about operations that the file system does not support, for the notes of the job.
    """

    def __init__(self, path: Path, new: Sequence[Path] = ()) -> None:
        """Create the directory if it does not exist; existing files in it are kept.

        Args:
            path: The directory.
            new: Parent folders that have been created for this directory, and that `discard` removes with it.

        Raises:
            UnusableDirectory: The directory cannot be created.
        """
        with _creating("--run-dir"):
            path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.notes: list[str] = []
        self.traces = TraceFiles(path)
        self._lock: int | None = None
        self._new, self._published = new, False
        self.calls = TraceFiles(path, "calls", calls.DTYPE)

    def lock(self) -> bool:
        """Lock the directory until this process ends; return False if another process holds the lock.

        If the file system has no locks, such as NFS without a lock daemon, a note states this, and the job continues.

        Raises:
            UnusableDirectory: The file of the lock cannot be opened.
        """
        try:
            if self._lock is None:
                self._lock = disk.lock(self.path / ".lock")
        except disk.NoLocks as error:
            self._lock = error.descriptor
            self.notes.append(sentence("run_directory_not_locked", reason=error.strerror or str(error.errno)))
        except OSError as error:
            raise UnusableDirectory(
                f"--run-dir must be a folder in which the file .lock can be opened; {self.path / '.lock'}: "
                f"{error.strerror}. Remove what is there, or choose another folder."
            ) from error
        return self._lock is not None

    def publish(self) -> None:
        """Make the link `latest`, in the parent folder, point to this directory.

        If the file system has no links, a note states this. Only the first call has an effect.
        """
        if self._published:
            return
        self._published = True
        try:
            disk.point_latest_to(self.path)
        except OSError as error:
            self.notes.append(sentence("no_latest_link", reason=error.strerror or str(error.errno)))

    def take_notes(self) -> list[str]:
        """Return the notes since the previous call."""
        new, self.notes = self.notes, []
        return new

    def announce(self, address: str) -> None:
        """Write the address of the coordinator, `HOST:PORT`, for programs that are given the directory instead."""
        with suppress(OSError), atomic_write(self.path / ADDRESS) as place:  # a full disk must not stop the job
            place.write_text(f"{address}\n")

    def withdraw(self) -> None:
        """Remove the address of a coordinator that ends."""
        with suppress(OSError):
            (self.path / ADDRESS).unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove the directory if it is empty."""
        with suppress(OSError):
            if {entry.name for entry in self.path.iterdir()} <= {".lock"}:
                (self.path / ".lock").unlink(missing_ok=True)
            self.path.rmdir()
            for folder in self._new:
                folder.rmdir()

    def write_json(self, name: str, content: dict[str, Any], durable: bool = False) -> None:
        """Write a JSON file atomically; with `durable`, it is on the disk when this method returns."""
        with atomic_write(self.path / name, durable) as place:
            place.write_text(json_text(content, indent=2) + "\n")

    def begin_generation(self) -> int:
        """Return the generation that begins with this start: one more than any before it in this directory.

        The file `generation` may be missing or damaged after a crash; the checkpoints then show that there was an
        earlier generation, so that a run is never mistaken for a new one.

        Raises:
            OSError: The disk is not writable.
        """
        for part in (*self.path.glob(".*.part"), *self.checkpoints.glob(".*.part")):
            part.unlink(missing_ok=True)  # left by a process that was killed
        generation = self._last_generation() + 1
        self.note_generation(generation)
        return generation

    def _last_generation(self) -> int:
        try:
            noted = int((self.path / "generation").read_text()[:DIGITS])
        except (OSError, ValueError):
            noted = 0
        if 0 < noted < LARGEST_GENERATION:
            return noted
        if not numbers(self.checkpoints):
            return 0
        checkpoint, _ = newest(self.checkpoints)
        return max(1, checkpoint.facts.generation) if checkpoint is not None else 1

    def note_generation(self, generation: int) -> None:
        """Record the newest generation for the next start, and remove replay data of the one before."""
        self.calls.drop()
        (self.path / "initial.safetensors").unlink(missing_ok=True)
        with atomic_write(self.path / "generation", durable=True) as place:
            place.write_text(f"{generation}\n")

    # ------------------------------------------------------------------ the state of a script's `fit`

    def keep_fit(self, checkpoint: int, state: bytes, generation: int, noted: int) -> None:
        """Write the state of a script's `fit` that belongs to the weights of a checkpoint.

        It survives the death of the process, which is all that it must: after that of the machine, the state in the
        checkpoint itself holds.

        Args:
            checkpoint: The number of the checkpoint.
            state: The state.
            generation: The present generation, which is noted for the next start.
            noted: The generation that was noted last.

        Raises:
            OSError: The disk is not writable.
        """
        if generation != noted:
            with atomic_write(self.path / "generation") as place:
                place.write_text(f"{generation}\n")
        with atomic_write(self._fit_state(checkpoint)) as place:
            place.write_text(json.dumps({"state": base64.b64encode(state).decode()}))

    def fit_after(self, checkpoint: int) -> str:
        """Return the state of a script's `fit`, in base64, that belongs to a checkpoint; empty if there is none."""
        return str((_read_json(self._fit_state(checkpoint)) or {}).get("state", ""))

    def _fit_state(self, checkpoint: int) -> Path:
        return self.checkpoints / f"fit-state-{checkpoint:08d}.json"

    def prune_fit(self) -> None:
        """Remove the states of `fit` of checkpoints that have been removed."""
        kept = {self._fit_state(number) for number in numbers(self.checkpoints)}
        for path in self.checkpoints.glob("fit-state-*.json"):
            if path not in kept:
                path.unlink(missing_ok=True)

    def keep_completed(self, checkpoint: int, call: int) -> None:
        """Keep a checkpoint as that of a complete call of `fit`, under a second name; the newest such files remain.

        An earlier file of the call is replaced: servers that have returned to a checkpoint complete the call again.

        Raises:
            OSError: The disk is not writable.
        """
        folder = self.path / "fits"
        folder.mkdir(exist_ok=True)
        path = folder / f"fit-{call:06d}.safetensors"
        source = path_of(self.checkpoints, checkpoint)
        if not path.exists() or not path.samefile(source):
            beside = path.with_name(f".{path.name}.link")
            beside.unlink(missing_ok=True)
            try:
                os.link(source, beside)
                beside.replace(path)
            except OSError:  # the file system has no links
                with atomic_write(path) as place:
                    shutil.copyfile(source, place)
        for old in sorted(folder.glob("fit-*.safetensors"))[:-COMPLETED_KEPT]:
            old.unlink(missing_ok=True)

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"
