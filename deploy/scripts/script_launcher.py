"""`downpour run [flags] SCRIPT [ARGS]`, or `-m MODULE [ARGS]`: trains a Keras script on a cluster on this machine.

Every worker runs the script (see worker/fit/__main__.py). Worker 0 writes to the terminal, the others to their logs.
If `TF_CONFIG` is set, this process becomes one process of such a cluster instead (see script_task.py).
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

from downpour.deploy.launch.environment import hash_seed
from downpour.deploy.launch.gpus import devices_here
from downpour.deploy.launch.launcher import DRAIN_TIMEOUT_S, GRACE_S, LEAVE_S, Launcher, LaunchFailed
from downpour.deploy.launch.plan import (
    AGAIN,
    LOOPBACK,
    NO_GPU,
    ProcessSpec,
    TooFewGpus,
    assigned_gpus,
    dashboard_process,
    flags_of_shard,
    on_gpus,
)
from downpour.deploy.launch.processes import Process, end, wait
from downpour.deploy.launch.resume import CannotResume
from downpour.deploy.launch.run_dir import make_run_dir
from downpour.deploy.launch.train import PLANNED, show_commands
from downpour.deploy.runs import LATEST, withdraw_latest
from downpour.deploy.scripts.script_checks import BadScript, check_script, name_of
from downpour.deploy.scripts.script_record import write_script_record
from downpour.deploy.scripts.script_resume import resumed_script
from downpour.deploy.scripts.script_settings import SET_BY_FLAGS_OF_RUN, RunSettings, refused_variables, server_flags
from downpour.deploy.scripts.script_task import replace_process
from downpour.deploy.scripts.tf_config import VARIABLE, BadTFConfig, read
from downpour.deploy.view.rendering import WAITING, where
from downpour.deploy.view.terminal import Screen
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.credentials import AccessSettings
from downpour.protos.logs import print_line, reason_of
from downpour.protos.sentences.sentence import counted
from downpour.protos.settings import flag, parse, split_positional, to_flags
from downpour.protos.system import disk
from downpour.worker.config import ScriptSettings
from downpour.worker.fit.process.file_delivery import deliver

PROG = "downpour run"
ABOUT = "Train a Keras script on a local cluster. SCRIPT, or -m MODULE, and its arguments follow the flags."
LEADER = "worker-0"
OTHERS_S = 60.0  # for the scripts of the other workers to end after that of worker 0, unless they train
OWN = "downpour: "  # of a message of the program that runs the script
FILES = "files"  # in the run directory, while the job runs: what workers have written privately
MODEL = "model.keras"  # in the run directory: the model that was fitted last
COMPLETED = "fits"  # in the run directory: the weights of calls of fit that are complete
LEADER_S, LEADER_SOON_S = 5.0, 2.0  # for worker 0 to fail as another worker has, at its start and later
UNSUPPORTED = 3  # exit status of a script that the cluster cannot train


def run(argv: list[str]) -> int:
    """Run `downpour run` and return its exit status."""
    flags, script = split_positional(RunSettings, argv)
    settings = parse(RunSettings, flags, PROG, ABOUT)
    if not script:
        print(f"{PROG}: SCRIPT must follow the flags; `{PROG} --help` lists the flags", file=sys.stderr)
        return 2
    if late := own_flags(script[1:]):
        print(
            f"{PROG}: {', '.join(late)} after SCRIPT is passed to the script; flags of {PROG} come before SCRIPT",
            file=sys.stderr,
        )
    try:
        task = read(text) if (text := os.environ.get(VARIABLE, "").strip()) else None
        if task is None or task.command == "worker":
            check_script(script)
        if refusal := refused_variables(os.environ, placed=task is not None):
            print(f"{PROG}: {refusal}", file=sys.stderr)
            return 2
        if task is not None:
            replace_process(task, settings, script)
        devices = devices_here(os.environ)
        assigned_gpus(settings.workers, devices, settings.gpus_per_worker)
    except (BadTFConfig, TooFewGpus) as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return 2
    except BadScript as error:
        print(error, file=sys.stderr)
        return error.code
    if settings.without_progress:
        print(f"{PROG}: {settings.without_progress}", file=sys.stderr)
        return 2
    if settings.dry_run:
        show_commands(script_plan(settings, PLANNED, script, devices=devices))
        return 0
    return launch(settings, script, name_of(script), devices=devices)


def own_flags(arguments: Sequence[str]) -> list[str]:
    """Return those arguments of a script that are flags of `downpour run` too."""
    own = {flag(name) for name in RunSettings.model_fields}
    return [name for name in (argument.partition("=")[0] for argument in arguments) if name in own]


def launch(
    settings: RunSettings, script: Sequence[str], name: str, shown: bool = True, devices: Sequence[str] = ()
) -> int:
    """Run a script on a cluster and return the exit status.

    Args:
        settings: The settings of the cluster.
        script: The path of the script and its arguments.
        name: The name used in the run directory's name.
        shown: Whether worker 0 writes to this process's output.
        devices: The names of the GPUs of this machine.
    """
    try:
        settings, run_dir = prepared_run(settings, name)
    except CannotResume as failure:
        print(f"{PROG}: {failure}", file=sys.stderr)
        return 2
    except OSError as failure:
        print(f"{PROG}: --runs-dir must be a writable folder; {reason_of(failure)}", file=sys.stderr)
        return 2
    if not (run_dir.parent / LATEST).exists():
        with suppress(OSError):  # server 0 reports it
            disk.point_latest_to(run_dir)  # before the workers start: a script may count what is in the folder
    with suppress(OSError):  # without it, the run cannot be replayed
        write_script_record(run_dir, script, settings)
    specs = script_plan(settings, str(run_dir), script, shown, devices)
    try:
        return ScriptLauncher(specs, run_dir, Notes(), settings.drain_timeout_s).run()
    finally:
        withdraw_latest(run_dir)


def prepared_run(settings: RunSettings, name: str) -> tuple[RunSettings, Path]:
    """Return the settings and the run directory of a new run, or of the one that is resumed.

    Raises:
        CannotResume: The run cannot be resumed with these settings.
        OSError: The run directory cannot be created.
    """
    if settings.resume is None:
        return settings, make_run_dir(Path(settings.runs_dir), name, datetime.now(UTC))
    settings, run_dir = resumed_script(settings)
    shutil.rmtree(run_dir / FILES, ignore_errors=True)
    (run_dir / "logs").mkdir(exist_ok=True)
    return settings, run_dir


def script_plan(
    settings: RunSettings, run_dir: str, script: Sequence[str], shown: bool = True, devices: Sequence[str] = ()
) -> list[ProcessSpec]:
    """Return the processes of a script's cluster in the order in which they must start."""
    job = server_flags(settings) + (list(AGAIN) if settings.resume is not None else [])
    own = flags_of_shard(settings)
    again = 0 if settings.checkpoint_every == "off" else settings.server_restarts
    servers = [_server(0, (f"--bind={LOOPBACK}", f"--run-dir={run_dir}", *job), again)]
    for shard in range(1, settings.shards):
        servers.append(_server(shard, (f"--bind={LOOPBACK}", "--coordinator={ps-0}", f"--shard={shard}", *own), again))
    view = [dashboard_process(to_flags(settings, AccessSettings))] if settings.dashboard else []
    view = [replace(each, set_by_flags=SET_BY_FLAGS_OF_RUN) for each in view]
    gpus = assigned_gpus(settings.workers, devices, settings.gpus_per_worker)
    workers = [_worker(number, settings, run_dir, script, shown) for number in range(settings.workers)]
    return [*servers, *view, *(on_gpus(spec, gpus[spec.number], settings.gpus_per_worker) for spec in workers)]


def _server(shard: int, flags: tuple[str, ...], restarts: int) -> ProcessSpec:
    env = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **NO_GPU}
    needs = ("ps-0",) if shard else ()
    return ProcessSpec(
        f"ps-{shard}", "ps", shard, "downpour.ps", flags, env, needs, restarts, set_by_flags=SET_BY_FLAGS_OF_RUN
    )


def _worker(number: int, settings: RunSettings, run_dir: str, script: Sequence[str], shown: bool) -> ProcessSpec:
    env = {
        "OMP_NUM_THREADS": str(settings.threads),
        "PYTHONHASHSEED": hash_seed(os.environ, settings.seed),
    }
    shared = os.path.abspath(os.path.join(run_dir, FILES))
    completed = os.path.abspath(os.path.join(run_dir, COMPLETED))
    model = [f"--model-file={os.path.abspath(os.path.join(run_dir, MODEL))}"] if number == 0 else []
    own = [f"--worker={number}", f"--shared-dir={shared}", f"--completed-dir={completed}", *model]
    flags = ("--server={ps-0}", *own, *to_flags(settings, ScriptSettings))
    return ProcessSpec(
        f"worker-{number}", "worker", number, "downpour.worker.fit", (*flags, *script), env, ("ps-0",),
        settings.worker_restarts, shown=shown and number == 0, foreign=True, set_by_flags=SET_BY_FLAGS_OF_RUN,
    )  # fmt: skip


class ScriptLauncher(Launcher):
    """A launcher whose job ends when the script of worker 0 has ended and no other worker trains."""

    _waits_for_others = False
    _last_message: int | None = None  # the count of messages of the coordinator when worker 0 had ended
    _last_message_at_s = 0.0
    _script_ended = False  # not `_ending_deadline`, which is also set when all end between two looks at their codes

    def __init__(
        self, specs: Sequence[ProcessSpec], run_dir: Path, screen: Screen, drain_timeout_s: float = DRAIN_TIMEOUT_S,
        poll: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """Prepare to run processes; see `Launcher`.

        Args:
            specs: As for `Launcher`.
            run_dir: As for `Launcher`.
            screen: As for `Launcher`.
            drain_timeout_s: As for `Launcher`.
            poll: A function that is called again and again while the script runs; an error of it ends the job.
        """
        super().__init__(specs, run_dir, screen, drain_timeout_s)
        self._poll = poll

    def run(self) -> int:
        """Run the script and return its exit status, or that of the launcher if the script has none."""
        try:
            code = super().run()
        finally:
            if (self._run_dir / FILES).is_dir():
                self._deliver_files()
                shutil.rmtree(self._run_dir / FILES, ignore_errors=True)
        script_code = self._processes[LEADER].code if LEADER in self._processes else None
        return script_code if script_code is not None and script_code > 0 else code

    def _deliver_files(self) -> None:
        """Move the files that only one worker has written to their paths."""
        deliver(str(self._run_dir / FILES), str(self._scratch.path) if self._scratch is not None else "")

    def last_error(self) -> str:
        """Return the whole text of the last error that worker 0 has logged, or its last line."""
        leader = self._processes.get(LEADER)
        lines = leader.tail(1000) if leader is not None else []
        return error_text(lines) or "worker 0 printed nothing"

    def _server_died(self, process: Process) -> None:
        """Restart a server, which resumes from its latest checkpoint, or end a job without checkpoints.

        Raises:
            LaunchFailed: The server is not restarted; the message says what to do.
        """
        try:
            super()._server_died(process)
        except LaunchFailed as failure:
            advice = "" if process.spec.restarts else ", and is not restarted without checkpoints"
            raise LaunchFailed(f"{failure}{advice}. Run the script again") from None

    def _check_workers(self) -> None:
        self._poll()
        leader = self._processes[LEADER]
        if leader.code is None:
            self._check_starts(leader)
            super()._check_workers()
            self._check_given_up()
        elif leader.code == 0:
            if not self._script_ended and self._others_are_done():
                self._end_script()
        elif leader.code > 0 or self._restarts.get(LEADER, 0) >= leader.spec.restarts:
            raise LaunchFailed(f"worker 0 {_end_of_script(leader)}")
        else:
            super()._check_workers()

    def _check_starts(self, leader: Process) -> None:
        """Fail the job if a worker could not begin: the others would wait for it, and its script would fail again.

        An error of a worker is raised on worker 0 too, which shows it, at about the same time.

        Raises:
            LaunchFailed: Worker 0 has failed as another one has, or one that is not worker 0 before its first step.
        """
        for process in self._role("worker"):
            if process is leader or (process.code or 0) <= 0 or process.spec.name in self._given_up:
                continue
            at_start = self._failed_at_start(process)
            wait([leader], LEADER_S if at_start else LEADER_SOON_S)
            if leader.code is None and at_start:
                raise LaunchFailed(f"{process.spec.name} {_end_of_script(process)} before its first step")
            if (leader.code or 0) > 0:
                raise LaunchFailed(f"worker 0 {_end_of_script(leader)}")

    def _check_given_up(self) -> None:
        """End the job if the script of a worker ends with an error each time: its part of the data would not be used.

        A restarted worker is refused if the others have completed calls of `fit` whose results are not kept: they
        continue without it. The coordinator fails the job if they need its part of the data.

        Raises:
            LaunchFailed: There is such a worker; the message states how its script ended.
        """
        for process in self._role("worker"):
            if process.code == UNSUPPORTED and process.spec.name in self._restarts:
                continue
            if (process.code or 0) > 0 and process.spec.name in self._given_up and self._drain_deadline is None:
                ending = f"{process.spec.name} {_end_of_script(process)}"
                raise LaunchFailed(self._reasons.at_restart(process.spec.number, ending, process.reason()))

    def _others_are_done(self) -> bool:
        """Return whether no other worker trains: workers that meet at no barrier may end long after worker 0."""
        others = [process for process in self._role("worker") if process.spec.name != LEADER]
        if all(process.code is not None for process in others):
            return True
        if self._watcher is None:
            return True
        if self._last_message is None:
            self._last_message, self._last_message_at_s = self._watcher.messages, monotonic()
        if not self._watcher.workers:
            # The newest message may be older than the end of worker 0, and than the session of a worker that trains.
            newer = self._watcher.messages > self._last_message
            return newer or monotonic() > self._last_message_at_s + OTHERS_S
        if not self._waits_for_others:
            self._waits_for_others = True
            self._screen.note(f"the script of worker 0 has ended; waiting until the others have: {_names(others)}")
        super()._check_workers()
        return False

    def _end_script(self) -> None:
        """Wait for the other workers, end those that still run, and tell the coordinator that the job has ended."""
        others = [process for process in self._role("worker") if process.spec.name != LEADER]
        if not wait(others, LEAVE_S):
            self._screen.note(
                f"the script of worker 0 has ended; waiting for {_names(others)} at most {OTHERS_S:.0f} s"
            )
            if not wait(others, OTHERS_S):
                self._screen.note(f"{_names(others)} did not end and is stopped: files that it did not write are lost")
                end(others, GRACE_S)
        self._begin_ending()
        self._script_ended = True
        if self._watcher is None or not self._watcher.stop("the script has ended", now=False, complete=True):
            raise LaunchFailed("the coordinator did not answer when the script ended")


def _names(processes: Sequence[Process]) -> str:
    """Return the names of the processes that still run, as a phrase for a message."""
    return ", ".join(process.spec.name for process in processes if process.code is None)


def error_text(lines: Sequence[str]) -> str:
    """Return the last error in the lines of a log, without its traceback; the last line if there is none."""
    heads = [at for at, line in enumerate(lines) if line.startswith("Traceback (most recent") or line.startswith(OWN)]
    if not heads:
        return lines[-1] if lines else ""
    last = lines[heads[-1] :]
    if last[0].startswith("Traceback"):
        frames = next((at for at, line in enumerate(last[1:], start=1) if not line.startswith(" ")), len(last))
        last = last[frames:]
    return "\n".join(last)


def _end_of_script(process: Process) -> str:
    """Return how the process of a script ended, as a phrase for a message."""
    return "stopped: unsupported configuration" if process.code == UNSUPPORTED else process.ending()


class Notes:
    """A screen that prints only notes, to standard error: the terminal belongs to the script."""

    _waiting = ""

    def show(self, progress: pb.Progress) -> None:
        """Print what training waits for; the progress of training is shown by Keras."""
        now = where(progress) if progress.phase in WAITING else ""
        if now and now != self._waiting:
            self.note(f"{now} ({progress.elapsed_s:.0f} s)")
        self._waiting = now

    def note(self, text: str) -> None:
        """Print a message to standard error, after the name of the command."""
        print_line(f"downpour: {text}", error=True)

    def close(self) -> None:
        """Do nothing: nothing is redrawn here."""

    def has_shown(self, log: Path) -> bool:
        """Return False: logs are not shown."""
        return False

    def table(self, summary: Mapping[str, Any], run: str) -> None:
        """Print the results in one line."""
        staleness = summary["staleness"]
        share = summary.get("communication_share")
        messages = "" if share is None else f", communication {share:.0%} of a step"
        pushed = f"{counted(summary['updates'], 'update')} by {counted(summary['workers'], 'worker')}"
        self.note(f"{pushed}, mean staleness {staleness['mean']:.2f}{messages}; logs and trace in {run}")
