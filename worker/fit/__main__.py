"""`python -m downpour.worker.fit [flags] SCRIPT [ARGS]`: runs a Keras script as one worker of a cluster.

Keras is patched (see `keras_patches`), so that the script itself changes in one line (see `distributed_optimizer`).
"""

from __future__ import annotations

import atexit
import os
import runpy
import sys
import threading
from typing import NoReturn

from downpour.protos.errors import DownpourError, Unsupported
from downpour.protos.settings import parse, split_positional
from downpour.worker.config import ScriptSettings
from downpour.worker.exchange.coordinator_client import CoordinatorClient
from downpour.worker.fit.member import ScriptWorker

# A script's servers are not started again, so all that can come back within is a connection.
AWAY_S = 10.0
NOT_KEPT = ". The servers of a script keep no checkpoints: start it again."


def main(argv: list[str]) -> int:
    """Runs the script; returns the exit code."""
    flags, script_and_arguments = split_positional(ScriptSettings, argv)
    settings = parse(ScriptSettings, flags, "python -m downpour.worker.fit")
    if not script_and_arguments:
        print("python -m downpour.worker.fit: a script must be given, after the flags", file=sys.stderr)
        return 2
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    control = CoordinatorClient(settings.server, settings.call_timeout_s)
    try:
        job = control.describe(settings.connect_timeout_s)
        if not job.script:
            raise Unsupported("the server at this address trains a job of its own; start one with --script.")
    except DownpourError as error:
        print(f"downpour: {error}", file=sys.stderr)
        control.close()
        return 1
    if settings.worker:  # pictures of a script are worker 0's to show
        os.environ.setdefault("MPLBACKEND", "Agg")
    control.tolerate_outage(AWAY_S, NOT_KEPT)
    member = ScriptWorker(control, job, settings.worker, settings.call_timeout_s)
    prepare(member, settings.threads, job.seed)
    try:
        code = execute(script_and_arguments)
        if code == 0 and settings.end_job:
            control.stop("the script has ended")
        return code
    except DownpourError as error:
        print(f"downpour: the job could not be ended: {error}", file=sys.stderr)
        return 1
    finally:
        member.close()


def prepare(member: ScriptWorker, threads: int, seed: int) -> None:
    """Makes this process a worker: threads, seed, and Keras's trainer wrapped."""
    import keras
    import tensorflow as tf

    from downpour.worker import script
    from downpour.worker.fit.keras_patches import wrap_loading, wrap_trainer

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    keras.utils.set_random_seed(seed)
    script.run_as(member)
    wrap_trainer(keras.Model, member)
    if not member.leads:
        wrap_loading()


def execute(script_and_arguments: list[str]) -> int:
    """Runs a script as `python SCRIPT ARGS` would; returns the exit code, 0 also after the script's `sys.exit()`."""
    path = script_and_arguments[0]
    sys.argv = script_and_arguments
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    try:
        runpy.run_path(path, run_name="__main__")
    except DownpourError as error:
        print(f"downpour: {error}", file=sys.stderr, flush=True)
        return 3
    except SystemExit as ending:
        if ending.code:
            raise
    return 0


def leave_python(code: int) -> NoReturn:
    """Ends the process as Python does, but for taking TensorFlow apart, which takes seconds."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    leave_python(main(sys.argv[1:]))
