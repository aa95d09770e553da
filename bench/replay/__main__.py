"""`downpour replay RUN_DIR`: does a recorded run again in one process and compares it with the record, bit for bit."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from downpour.bench.replay.record import CannotReplay, Recorded, read_run
from downpour.bench.replay.shard_replay import RecordBroken
from downpour.bench.replay.shards import Replay
from downpour.bench.replay.verdict import Verdict, Weights, as_json, report
from downpour.protos.settings import Settings, parse

if TYPE_CHECKING:
    from downpour.bench.replay.workers import Workers

ABOUT = "Do a recorded run again in one process: exit status 0 if it gives the same bits, 1 if not."
SAY_EVERY_S = 2.0


class ReplaySettings(Settings):
    """What to do again, and how far."""

    positional: ClassVar[tuple[str, ...]] = ("run_dir",)

    run_dir: str = Field(description="run directory, such as runs/latest")
    until: int | None = Field(None, ge=0, description="stop at this version of shard 0 and save the weights it had")
    save: str | None = Field(None, description="where to save them (default: replay-VERSION.keras in RUN_DIR)")
    model: str | None = Field(None, description="module:function that returns the model (default: the run's)")
    dataset: str | None = Field(None, description="path of the data, where they are not where they were")
    json_: bool = Field(False, description="print one JSON object")


def replay(settings: ReplaySettings) -> tuple[Verdict, Recorded, Path | None]:
    """Does a run again; returns how it compares, the run, and where weights were saved.

    Raises:
        CannotReplay: It is no run that can be replayed.
        RecordBroken: Its record contradicts itself.
    """
    recorded = read_run(Path(settings.run_dir))
    if settings.until is None and not recorded.model_path.exists():
        raise CannotReplay(
            f"there must be final weights to compare with; {recorded.path} has no model.keras: the run did not end. "
            "Say --until VERSION for the weights at a version."
        )
    from downpour.bench.replay.workers import Workers  # TensorFlow is slow to load

    workers = Workers(recorded, settings.model, settings.dataset)
    again = Replay(recorded, workers, settings.until)
    again.run(_Progress(sum(map(len, recorded.traces[:1]))))
    weights, path = None, None
    if settings.until is None:
        weights = _compare_last(workers, recorded, again.weights)
    if settings.until is not None or settings.save:
        path = Path(settings.save) if settings.save else recorded.path / f"replay-{again.versions[0]}.keras"
        workers.save(again.weights, path)
    return Verdict(again, weights, workers.doubts), recorded, path


def _compare_last(workers: Workers, recorded: Recorded, found: np.ndarray) -> Weights:
    expected = workers.saved(recorded.model_path)
    return Weights.of(workers.held(found), expected, recorded.initial)


class _Progress:
    """Says on a terminal how far it has come."""

    def __init__(self, total: int) -> None:
        self._total, self._said_s = total, time.monotonic()

    def __call__(self, pushes: int) -> None:
        now = time.monotonic()
        if sys.stderr.isatty() and now > self._said_s + SAY_EVERY_S:
            self._said_s = now
            print(f"{pushes:,} of {self._total:,} pushes", file=sys.stderr)


def main(argv: list[str]) -> int:
    """Runs from command-line flags; returns the exit status: 0 the same, 1 not, 2 it cannot be replayed."""
    settings = parse(ReplaySettings, argv, "downpour replay", ABOUT)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    begin_s = time.monotonic()
    try:
        verdict, recorded, path = replay(settings)
    except CannotReplay as error:
        print(f"downpour replay: {error}", file=sys.stderr)
        return 2
    except RecordBroken as error:
        print(f"downpour replay: the record does not fit together: {error}", file=sys.stderr)
        return 1
    seconds = time.monotonic() - begin_s
    print(as_json(verdict, recorded, path, seconds) if settings.json_ else report(verdict, recorded, path))
    return 0 if verdict.passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
