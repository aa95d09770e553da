"""The reports of a run: configuration, summary, TensorBoard's event file, and the server's log."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from downpour.protos.logs import log, reason_of
from downpour.protos.sentences.sentence import sentence
from downpour.protos.system import clock
from downpour.protos.system.command import command_of_process
from downpour.ps.config_change import original
from downpour.ps.coordinator.coordinator import Coordinator
from downpour.ps.coordinator.phase import Phase
from downpour.ps.monitoring.divergence import LossWatch
from downpour.ps.monitoring.job_log import JobLog
from downpour.ps.monitoring.summary import configuration, summary
from downpour.ps.monitoring.tensorboard import TensorBoardWriter
from downpour.ps.storage.ended_run import SUCCESSFUL, read_summary
from downpour.ps.storage.run_directory import RunDirectory
from downpour.ps.trace.metrics import Metrics


class RunReports:
    """Writes the reports of a job; a file that cannot be written is reported in a note, and is written later."""

    def __init__(self, coordinator: Coordinator, metrics: Metrics, run: RunDirectory) -> None:
        """Create the reports of one job before anything is written.

        Args:
            coordinator: The coordinator of the job.
            metrics: The counts of shard 0.
            run: The run directory.
        """
        self._coordinator, self._job, self._metrics, self._run = coordinator, coordinator.job, metrics, run
        self._board = (
            TensorBoardWriter(run.path, coordinator, metrics) if coordinator.job.settings.tensorboard else None
        )
        self._loss_watch = LossWatch(metrics)
        self._job_log = JobLog(coordinator, metrics, str(run.path))
        self._facts_written: int | None = None  # in config.json
        self._begun = begun(run.path / "config.json")
        self._trace_failing = self._removed = False
        self._notes_logged = 0

    def flush(self, now: float) -> None:
        """Write the configuration, TensorBoard's file and the log, if they have changed.

        Args:
            now: The seconds since 1970.
        """
        job = self._job
        facts = sum(1 + len(each) for each in job.facts.values())
        if self._facts_written != facts:
            written = self._write(
                "config.json",
                {**configuration(original(job.settings, job.changes), job.facts, job.data), **self._begun},
            )
            self._facts_written = facts if written else None
        failure = self._run.traces.trouble or self._run.calls.trouble
        if bool(failure) != self._trace_failing:
            self._trace_failing = not self._trace_failing
            job.notes.append(sentence("trace_not_written", reason=failure) if failure else sentence("trace_again"))
        if not self._removed and not self._run.path.exists():
            self._removed = True
            job.notes.append(sentence("run_directory_removed", folder=str(self._run.path)))
        if note := self._loss_watch.look():
            job.notes.append(note)
        if self._board:
            self._board.write(now)
        self.write_log(now)

    def write_log(self, now: float | None = None) -> None:
        """Log the notes and the events that are new; with the time `now` in seconds, also what is waited for."""
        for line in (*self._job.notes.since(self._notes_logged), *self._job_log.news(now)):
            log(line)
        self._notes_logged = self._job.notes.total

    def write_summary(self, totals: dict[str, Any]) -> None:
        """Write the summary, with the totals of the server's processes.

        A failure never replaces the summary of an earlier life that ended well, unless the run has advanced since.
        """
        found = {**self._begun, **summary(self._coordinator, self._metrics, totals)}
        earlier = read_summary(self._run.path / "summary.json")
        if self._job.phase == Phase.FAILED and earlier.get("status") in SUCCESSFUL:
            if found["updates"] <= (earlier.get("updates") or 0):
                log("the run has not advanced: summary.json remains that of its earlier end")
                return
        with suppress(OSError):  # which a note reports
            self._run.traces.sync()  # first: a power failure must not leave the summary of a run without its trace
        self._write("summary.json", found, durable=True)

    def close(self, now: float) -> None:
        """Write the last values to TensorBoard's file; `now` is in seconds since 1970."""
        if self._board:
            self._board.write(now, last=True)

    def _write(self, name: str, content: dict[str, Any], durable: bool = False) -> bool:
        """Write a file of the run; return whether that succeeded."""
        try:
            self._run.write_json(name, content, durable)
        except OSError as error:
            note = sentence("file_not_written", file=name, reason=reason_of(error))
            if note not in self._job.notes:
                self._job.notes.append(note)
            return False
        return True


def begun(configuration: Path) -> dict[str, str]:
    """Return the command of this life of a run, and the time at which the first life began, in UTC by ISO 8601."""
    earlier = read_summary(configuration).get("started")  # a JSON object, as a summary is
    now = datetime.fromtimestamp(clock.wall(), UTC).isoformat(timespec="seconds")
    return {"started": earlier if isinstance(earlier, str) else now, "command": command_of_process()}
