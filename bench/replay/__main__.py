"""`downpour replay RUN_DIR`: repeats a recorded run in one process and compares it with the record bit by bit."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from downpour.bench.replay.record import CannotReplay, Recorded, read_run
from downpour.bench.replay.script_replay import as_json as script_json
from downpour.bench.replay.script_replay import compare, new_folder, run_again
from downpour.bench.replay.script_replay import report as script_report
from downpour.bench.replay.script_run import is_script_run, read_script_run
from downpour.bench.replay.script_weights import save_weights
from downpour.bench.replay.shard_replay import RecordBroken
from downpour.bench.replay.shards import Replay
from downpour.bench.replay.verdict import Verdict, Weights, as_json, report
from downpour.deploy.runs import RunPath
from downpour.protos.settings import Settings, parse
from downpour.protos.system.progress import doing
from downpour.worker.quiet_tensorflow import load_tensorflow

if TYPE_CHECKING:
    from downpour.bench.replay.workers import Workers

ABOUT = (
    "Repeat a recorded run: one of `downpour train` in one process, one of a script in as many as before. The exit "
    "status is 0 if the results have the same bits, 1 if they differ, and 2 if the run cannot be repeated."
)
PROGRESS_EVERY_S = 2.0


class ReplaySettings(Settings):
    """The settings of the command `downpour replay`."""

    positional: ClassVar[tuple[str, ...]] = ("run_dir",)

    run_dir: RunPath = Field(description="Run directory, such as latest.")
    until: int | None = Field(None, ge=0, description="Stop at this version of shard 0 and save its weights.")
    save: str | None = Field(None, description="Path of the saved weights (default: replay-VERSION.keras in RUN_DIR).")
    model: str | None = Field(
        None, description="Function, as module:function, that returns the model (default: that of the run)."
    )
    dataset: str | None = Field(None, description="Path of the data (default: that of the run).")
    fit: int = Field(0, ge=0, description="With --until, of a script: the call of fit, from 1 (default: the last one).")
    json_: bool = Field(False, description="Print one JSON object.")


def replay(settings: ReplaySettings) -> tuple[Verdict, Recorded, Path | None]:
    """Repeat a run and return the verdict, the run, and the path of the saved weights.

    Raises:
        CannotReplay: The run cannot be replayed.
        RecordBroken: The record contradicts itself.
    """
    recorded = read_run(Path(settings.run_dir))
    if settings.until is None and not recorded.model_path.exists():
        raise CannotReplay(
            f"the run must have ended, so that its final weights can be compared; {recorded.path} has no model.keras. "
            "Use --until VERSION to obtain the weights of a version."
        )
    load_tensorflow()  # only now, as it takes seconds
    from downpour.bench.replay.workers import Workers

    workers = Workers(recorded, settings.model, settings.dataset)
    again = Replay(recorded, workers, settings.until)
    with doing("repeat the pushes", sum(map(len, recorded.traces[:1]))) as set_done:
        again.run(set_done)
    weights, path = None, None
    if settings.until is None:
        weights = _compare_last(workers, recorded, again.weights)
    if settings.until is not None or settings.save:
        path = Path(settings.save) if settings.save else recorded.path / f"replay-{again.versions[0]}.keras"
        workers.save(again.weights, path)
    return Verdict(again, weights, workers.nondeterminism), recorded, path


def replay_script(settings: ReplaySettings, begin_s: float) -> int:
    """Run a recorded script again, print the verdict, and return the exit status.

    Raises:
        CannotReplay: The run cannot be replayed.
    """
    if settings.model or settings.dataset:
        raise CannotReplay("the script of a run defines its model and its data. Leave --model and --dataset out.")
    recorded = read_script_run(Path(settings.run_dir), whole=settings.until is None)
    folder = new_folder(recorded)
    run_dir = run_again(recorded, folder, settings.fit, settings.until)
    if settings.until is not None:
        load_tensorflow()
        path = Path(settings.save) if settings.save else recorded.path / f"replay-{settings.until}"
        saved = save_weights(recorded, folder / "order", path)
        print(f"weights of version {settings.until} of shard 0, call {settings.fit or recorded.fits} of fit: {saved}")
        return 0
    verdict = compare(recorded, run_dir)
    wall_s = time.monotonic() - begin_s
    print(script_json(recorded, verdict, wall_s) if settings.json_ else script_report(recorded, verdict))
    return 0 if verdict.exact else 1


def _compare_last(workers: Workers, recorded: Recorded, found: np.ndarray) -> Weights:
    expected = workers.saved(recorded.model_path)
    return Weights.of(workers.held(found), expected, recorded.initial)


def main(argv: list[str]) -> int:
    """Run `downpour replay`; return 0 if the results are equal, 1 if they differ, 2 if the run cannot be replayed."""
    settings = parse(ReplaySettings, argv, "downpour replay", ABOUT)
    os.environ["KERAS_BACKEND"] = "tensorflow"
    begin_s = time.monotonic()
    try:
        if is_script_run(Path(settings.run_dir)):
            return replay_script(settings, begin_s)
        verdict, recorded, path = replay(settings)
    except CannotReplay as error:
        print(f"downpour replay: {error}", file=sys.stderr)
        return 2
    except RecordBroken as error:
        print(f"downpour replay: the record contradicts itself: {error}", file=sys.stderr)
        return 1
    seconds = time.monotonic() - begin_s
    print(as_json(verdict, recorded, path, seconds) if settings.json_ else report(verdict, recorded, path))
    return 0 if verdict.passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
