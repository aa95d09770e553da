"""`python -m downpour.worker.fit [flags] SCRIPT [ARGS]` runs a Keras script as one worker of a cluster.

Methods of Keras are wrapped (see `keras_patches`), so that a script changes in one line (see `distributed_optimizer`).
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from typing import TYPE_CHECKING, NoReturn

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import DownpourError, Unsupported
from downpour.protos.settings import parse, split_positional
from downpour.protos.system.progress import waiting_for
from downpour.worker.config import ScriptSettings
from downpour.worker.exchange.coordinator_client import CoordinatorClient
from downpour.worker.fit.cluster.script_worker import ScriptWorker
from downpour.worker.fit.script_error import show_error
from downpour.worker.quiet_tensorflow import load_tensorflow

ADVICE = " (its --reconnect-s). Start the script again."

if TYPE_CHECKING:
    from downpour.worker.fit.process.script_process import ScriptProcess


def main(argv: list[str]) -> int:
    """Run the script, and return the exit code."""
    flags, script_and_arguments = split_positional(ScriptSettings, argv)
    settings = parse(ScriptSettings, flags, "python -m downpour.worker.fit")
    if not script_and_arguments:
        print("python -m downpour.worker.fit: a script must be given, after the flags", file=sys.stderr)
        return 2
    os.environ["KERAS_BACKEND"] = "tensorflow"
    control = CoordinatorClient(settings.server, settings.call_timeout_s)
    try:
        with waiting_for(f"the server at {settings.server}"):
            job = control.describe(settings.connect_timeout_s)
        if not job.script:
            raise Unsupported(
                "the server must have been started for a script. Received: one that runs built-in training. "
                "Start a server with --script."
            )
    except DownpourError as error:
        print(f"downpour: {error}", file=sys.stderr)
        control.close()
        return 1
    if settings.worker:  # only worker 0 displays plots
        os.environ.setdefault("MPLBACKEND", "Agg")
    control.tolerate_outage(job.reconnect_s, ADVICE)
    member = ScriptWorker(control, job, settings.worker, settings.call_timeout_s, settings.completed_dir)
    try:
        load_tensorflow(plots=True, gpus=settings.gpus)
    except Unsupported as error:
        print(f"downpour: {error}", file=sys.stderr)
        member.close()
        return 3
    try:
        process = prepare(member, job, settings.threads, settings.shared_dir, settings.private_files)
        code = execute(script_and_arguments)
        if code == 0 and settings.model_file:
            process.save_fitted(settings.model_file)
        if code == 0 and settings.end_job:
            control.stop("the script has ended", complete=True)
        return code
    except DownpourError as error:
        print(f"downpour: the request to end the job failed: {error}", file=sys.stderr)
        return 1
    finally:
        member.close()


def prepare(
    member: ScriptWorker, job: pb.JobDescription, threads: int, shared_dir: str, private_files: bool = False
) -> ScriptProcess:
    """Make this process a worker: set threads and seed, separate its files, and wrap Keras."""
    import keras
    import tensorflow as tf

    from downpour.worker import script
    from downpour.worker.fit.keras_patches import wrap_trainer
    from downpour.worker.fit.process.randomness import Randomness
    from downpour.worker.fit.process.script_files import ScriptFiles
    from downpour.worker.fit.process.script_process import ScriptProcess
    from downpour.worker.fit.process.trackers import discard_tracking

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    randomness = Randomness(job.seed, member.rank, member.size, job.job)
    process = ScriptProcess(randomness, ScriptFiles(member.rank, member.size, shared_dir, private_files))
    process.install()
    if not member.is_leader:
        discard_tracking()
    script.run_as(member, process)
    wrap_trainer(keras.Model, member, process)
    return process


def execute(script_and_arguments: list[str]) -> int:
    """Run a script as `python SCRIPT ARGS` or `python -m MODULE ARGS` would.

    Returns:
        The exit code: 0 also after `sys.exit()`, 1 after an error of the script, 3 if the script cannot be trained
        with servers.
    """
    from downpour.worker.fit.process.main_module import run_main

    try:
        run_main(script_and_arguments)
    except DownpourError as error:
        print(f"downpour: {error}", file=sys.stderr, flush=True)
        return 3
    except SystemExit as ending:
        if ending.code:
            raise
    except Exception as error:
        show_error(error)
        return 1
    return 0


def leave_python(code: int) -> NoReturn:
    """End the process as Python does, but without the destruction of TensorFlow, which takes seconds."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    leave_python(main(sys.argv[1:]))
