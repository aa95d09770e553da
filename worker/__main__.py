"""Entry point of `python -m downpour.worker`: one worker process."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from downpour.protos.errors import DownpourError, Unsupported
from downpour.protos.logs import identify
from downpour.protos.sentences.sentence import counted
from downpour.protos.settings import parse
from downpour.protos.system.progress import waiting_for
from downpour.worker.config import WorkerSettings
from downpour.worker.exchange.coordinator_client import CoordinatorClient
from downpour.worker.quiet_tensorflow import load_tensorflow

UNSUPPORTED = 3  # exit status after which a restart would not help


def main(argv: list[str]) -> int:
    """Run a worker from command-line flags; return its exit code."""
    settings = parse(WorkerSettings, argv, "downpour worker")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    on_signals(leave_early)
    control = CoordinatorClient(settings.server, settings.call_timeout_s)
    try:
        with waiting_for(f"the server at {settings.server}"):
            job = control.describe(settings.connect_timeout_s)
    except DownpourError as error:
        return fail(error, 1)
    identify(job=job.job)
    if settings.worker is not None:
        identify(process=f"worker-{settings.worker}", worker=settings.worker)
    # TensorFlow takes seconds to load, so it is loaded after the server has replied.
    try:
        load_tensorflow(gpus=settings.gpus)
    except Unsupported as error:
        control.close()
        return fail(error, UNSUPPORTED)
    from downpour.worker.catalog.datasets import DatasetError
    from downpour.worker.catalog.models import ModelError
    from downpour.worker.exchange.errors import UNRECOVERABLE, WORKER_ERRORS, exit_code_of
    from downpour.worker.train.keras_computation import KerasComputation
    from downpour.worker.train.loop import Worker

    try:
        computation = KerasComputation(settings, job)
        with waiting_for(f"the {counted(job.shards, 'shard')} of the job at {settings.server}"):
            worker = Worker(settings, control, job, computation)
        on_signals(lambda number, frame: worker.stop())
        worker.watchdog.observe_signals()
        worker.run()
    except (DatasetError, ModelError) as error:
        return fail(error, UNRECOVERABLE)
    except WORKER_ERRORS as error:
        return fail(error, exit_code_of(error))
    finally:
        control.close()
    return 0


def on_signals(act: Callable[[int, FrameType | None], None]) -> None:
    """Handle SIGTERM and SIGINT with the same function."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, act)


def leave_early(number: int, frame: FrameType | None) -> NoReturn:
    """Exit a worker that has not started to train: there is nothing to save, and TensorFlow may be half loaded."""
    os.write(2, b"downpour worker: stopped by a signal before training\n")
    os._exit(0)


def fail(error: Exception, code: int) -> int:
    """Print the error and return the code."""
    print(f"downpour worker: {error}", file=sys.stderr, flush=True)
    return code


def leave(code: int) -> NoReturn:
    """Exit at once: the regular teardown of TensorFlow would use the processor for more than a second."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
