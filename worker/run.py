"""`python -m worker.run [flags] SCRIPT [ARGS]`: runs a Keras script as one worker of a cluster.

Keras's trainer is wrapped, so that the script itself changes in one line alone (see worker/optimizer.py).
"""

from __future__ import annotations

import atexit
import functools
import inspect
import os
import runpy
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

from protos.errors import DownpourError, Unsupported
from protos.settings import parse, split_positional
from worker.config import ScriptSettings
from worker.control import Control
from worker.member import Member

SILENT = ("evaluate", "predict")  # on all workers but worker 0
NOTHING = ("save", "save_weights", "export")


def main(argv: list[str]) -> int:
    """Runs the script; returns the exit code."""
    flags, script_and_arguments = split_positional(ScriptSettings, argv)
    settings = parse(ScriptSettings, flags, "python -m worker.run")
    if not script_and_arguments:
        print("python -m worker.run: a script must be given, after the flags", file=sys.stderr)
        return 2
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    control = Control(settings.server, settings.call_timeout_s)
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
    member = Member(control, job, settings.worker, settings.call_timeout_s)
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


def prepare(member: Member, threads: int, seed: int) -> None:
    """Makes this process a worker: threads, seed, and Keras's trainer wrapped."""
    import keras
    import tensorflow as tf

    from worker import script

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    keras.utils.set_random_seed(seed)
    script.member = member
    wrap_trainer(keras.Model, member)


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


def wrap_trainer(model: Any, member: Member) -> None:
    """Replaces methods of Keras's trainer, in the classes that define them."""
    _wrap(model, "compile", _compile)
    _wrap(model, "fit", functools.partial(_fit, member))
    for name in SILENT:
        _wrap(model, name, functools.partial(_silent, member))
    for name in NOTHING:
        _wrap(model, name, functools.partial(_saved, member))


def _wrap(model: Any, name: str, wrapper: Callable[..., Any]) -> None:
    owner = next(kind for kind in model.__mro__ if name in vars(kind))
    own = vars(owner)[name]

    @functools.wraps(own)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        return wrapper(own, self, *args, **kwargs)

    setattr(owner, name, wrapped)


def _compile(own: Callable[..., Any], model: Any, *args: Any, **kwargs: Any) -> Any:
    """Turns XLA off: it cannot call out to the servers."""
    from worker.optimizer import Distributed

    given = _arguments(own, model, args, kwargs)
    if isinstance(given["optimizer"], Distributed):
        if given["jit_compile"] is True:
            print("downpour: jit_compile=True is not possible while servers train: compiled without", file=sys.stderr)
        given["jit_compile"] = False
    result = own(model, **given)
    inner = getattr(model.optimizer, "inner_optimizer", None)  # of what Keras wraps around it under mixed_float16
    if isinstance(inner, Distributed):
        raise Unsupported(
            "a model with a distributed optimizer must not have its loss scaled, which the policy mixed_float16 asks "
            "for. Use mixed_bfloat16."
        )
    return result


def _fit(member: Member, own: Callable[..., Any], model: Any, *args: Any, **kwargs: Any) -> Any:
    from worker.fit import distributed_fit
    from worker.optimizer import Distributed

    given = _arguments(own, model, args, kwargs)
    if isinstance(model.optimizer, Distributed):
        return distributed_fit(own, model, member, given)
    if member.leads:
        print("downpour: this model has no DistributedOptimizer: every worker trains it by itself", file=sys.stderr)
    else:
        given["verbose"] = 0
    return own(model, **given)


def _silent(member: Member, own: Callable[..., Any], model: Any, *args: Any, **kwargs: Any) -> Any:
    given = _arguments(own, model, args, kwargs)
    if not member.leads:
        given["verbose"] = 0
    return own(model, **given)


def _saved(member: Member, own: Callable[..., Any], model: Any, *args: Any, **kwargs: Any) -> Any:
    """Worker 0 alone writes, for plain Keras."""
    from worker.optimizer import as_plain

    if not member.leads:
        return None
    with as_plain(getattr(model, "optimizer", None)):
        return own(model, *args, **kwargs)


def _arguments(own: Callable[..., Any], model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """All arguments by name, defaults included."""
    bound = inspect.signature(own).bind(model, *args, **kwargs)
    bound.apply_defaults()
    given = dict(bound.arguments)
    del given["self"]
    more = given.pop("kwargs", {})
    return {**given, **more}


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
