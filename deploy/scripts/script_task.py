"""`downpour run` with `TF_CONFIG`, which defines the process of a script's cluster that this process becomes.

A platform starts the same command in every container. Each process becomes one server, or one worker that runs the
script. Worker 0 (the chief, if there is one) ends the job when its script has ended successfully.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from downpour.deploy.launch.environment import child_environment, hash_seed
from downpour.deploy.launch.gpus import devices_here
from downpour.deploy.launch.plan import NO_GPU, VISIBLE_DEVICES, assigned_gpus, flags_of_shard
from downpour.deploy.scripts.script_settings import SET_BY_FLAGS_OF_RUN, RunSettings, server_flags
from downpour.deploy.scripts.tf_config import VARIABLE, BadTFConfig, Task
from downpour.protos.settings import ENV_PREFIX, to_flags
from downpour.worker.config import ScriptSettings

SIZE = ("workers", "shards")


def command_line(task: Task, settings: RunSettings, script: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """Return the module and the arguments of a task's process.

    Args:
        task: The task of the cluster.
        settings: The settings of the job; those not set by the user receive the cluster's size from `TF_CONFIG`.
        script: The path of the script and its arguments.
        environ: The environment, in which a `DOWNPOUR_*` variable takes precedence over addresses of `TF_CONFIG`.

    Raises:
        BadTFConfig: A script's cluster has no such task.
    """
    if task.kind == "evaluator":
        raise BadTFConfig(
            f"{VARIABLE} must describe a ps, chief, master or worker; received evaluator. Remove that replica from the "
            "job: worker 0 evaluates, as the script defines."
        )
    own = {name: value for name, value in task.flags.items() if name not in SIZE}
    flags = [f"--{name}={value}" for name, value in own.items() if not environ.get(f"{ENV_PREFIX}{name.upper()}")]
    if task.command == "worker":
        ends = ["--end-job"] if task.flags.get("worker") == "0" else []
        return ["downpour.worker.fit", *flags, *to_flags(settings, ScriptSettings), *ends, *script]
    if task.index:
        return ["downpour.ps", *flags, *flags_of_shard(settings)]
    size = {name: int(task.flags[name]) for name in SIZE if name in task.flags.keys() - settings.model_fields_set}
    # A platform starts a server again as a new one, which does not find the checkpoints of the one before.
    kept = () if "checkpoint_every" in settings.model_fields_set else ("--checkpoint-every=off",)
    return ["downpour.ps", *flags, *server_flags(settings.model_copy(update=size)), *kept]


def replace_process(task: Task, settings: RunSettings, script: Sequence[str]) -> NoReturn:
    """Replace this process by that of its task.

    Raises:
        BadTFConfig: A script's cluster has no such task.
        TooFewGpus: This machine has fewer GPUs than a worker needs.
    """
    module, *arguments = command_line(task, settings, script, os.environ)
    threads = str(settings.threads if module == "downpour.worker.fit" else 1)
    own = {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    if module == "downpour.ps":
        own |= NO_GPU
    else:
        own["PYTHONHASHSEED"] = hash_seed(os.environ, settings.seed)
    if module != "downpour.ps" and settings.gpus_per_worker is not None:
        gpus = assigned_gpus(1, devices_here(os.environ), settings.gpus_per_worker)[0] or ()
        arguments.insert(0, f"--gpus={len(gpus)}")
        own[VISIBLE_DEVICES] = ",".join(gpus)
    os.execve(
        sys.executable,
        [sys.executable, "-P", "-m", module, *arguments],
        child_environment(os.environ, own, SET_BY_FLAGS_OF_RUN),
    )
