"""Settings of a job whose processes an engine places: those of `downpour train` or `downpour run`, and a few more."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from downpour.deploy.config import TrainSettings
from downpour.deploy.engines.place import PORT
from downpour.deploy.scripts.script_settings import RunSettings
from downpour.protos.settings import Settings


class EngineSettings(Settings):
    """Settings of the processes' place."""

    host: str | None = Field(
        None, description="Name or address under which other nodes reach the first server (default: its node's name)."
    )
    port: int = Field(
        PORT, ge=1, lt=65536, description="Port of the first server, where an engine starts one command on each node."
    )
    insecure: bool = Field(
        False, description="Listen beyond loopback without TLS and a token, in a network that you trust."
    )
    requeue: bool = Field(
        False, description="Requeue the job with scontrol after a signal has ended it with a checkpoint (Slurm)."
    )


OWN = tuple(EngineSettings.model_fields)


class EngineTrainSettings(TrainSettings, EngineSettings):
    """Train a built-in model as one process of a job that an engine has started."""

    groups: ClassVar[dict[str, tuple[str, ...]]] = {"engine": OWN, **TrainSettings.groups}
    follows: ClassVar[str] = "[SCRIPT [ARGUMENTS]]"


class EngineRunSettings(RunSettings, EngineSettings):
    """Train a Keras script as one process of a job that an engine has started."""

    groups: ClassVar[dict[str, tuple[str, ...]]] = {"engine": OWN, **RunSettings.groups}
