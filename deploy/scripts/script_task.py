"""`downpour run` where `TF_CONFIG` says which process of a script's cluster this one is.

A platform starts the same command in every container. Here it becomes one server, or one worker that runs the
script; worker 0 (the chief, where there is one) ends the job when its script has ended well.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from downpour.deploy.launch.environment import child_environment
from downpour.deploy.scripts.script_settings import SCRIPT_JOB, RunSettings
from downpour.deploy.scripts.tf_config import VARIABLE, BadTFConfig, Task
from downpour.protos.settings import ENV_PREFIX, to_flags
from downpour.ps.config import ServerSettings

SIZE = ("workers", "shards")


def command_line(task: Task, settings: RunSettings, script: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """Module and arguments of a task's process. Pure.

    Args:
        task: Of the cluster.
        settings: Of the job; the cluster's size is `TF_CONFIG`'s where they do not say it.
        script: Path and arguments.
        environ: A `DOWNPOUR_*` variable wins over what `TF_CONFIG` says of addresses.

    Raises:
        BadTFConfig: A script's cluster has no such task.
    """
    if task.kind == "evaluator":
        raise BadTFConfig(
            f"{VARIABLE} must be of a ps, chief, master or worker: worker 0 of a script evaluates, as the script says; "
            "received evaluator. Take that replica out of the job."
        )
    own = {name: value for name, value in task.flags.items() if name not in SIZE}
    flags = [f"--{name}={value}" for name, value in own.items() if not environ.get(f"{ENV_PREFIX}{name.upper()}")]
    if task.command == "worker":
        ends = ["--end-job"] if task.flags.get("worker") == "0" else []
        return ["downpour.worker.fit", *flags, f"--threads={settings.threads}", *ends, *script]
    if task.index:
        return ["downpour.ps", *flags]
    size = {name: int(task.flags[name]) for name in SIZE if name in task.flags.keys() - settings.model_fields_set}
    return ["downpour.ps", *flags, *to_flags(settings.model_copy(update=size), ServerSettings), *SCRIPT_JOB]


def become(task: Task, settings: RunSettings, script: Sequence[str]) -> NoReturn:
    """Turns this process into its task's.

    Raises:
        BadTFConfig: A script's cluster has no such task.
    """
    module, *arguments = command_line(task, settings, script, os.environ)
    said_by_flags = (
        {f"{ENV_PREFIX}{name.upper()}" for name in RunSettings.model_fields} if module == "downpour.ps" else set()
    )
    threads = str(settings.threads if module == "downpour.worker.fit" else 1)
    own = {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    os.execve(
        sys.executable,
        [sys.executable, "-P", "-m", module, *arguments],
        child_environment(os.environ, own, said_by_flags),
    )
