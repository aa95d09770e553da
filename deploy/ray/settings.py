"""Settings of a job on a Ray cluster: those of `downpour train` or `downpour run`, and the place of its processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from downpour.deploy.config import TrainSettings
from downpour.deploy.ray.remote_process import workers_of
from downpour.deploy.scripts.script_settings import RunSettings
from downpour.protos.settings import Settings


class RaySettings(Settings):
    """The cluster, and the place of the processes in it."""

    address: str = Field("auto", description="Address of the Ray cluster: auto, local, or HOST:PORT of its head.")
    max_workers: int | None = Field(
        None, ge=1, le=1024, description="Largest number of workers; --workers 2..8 sets both (default: --workers)."
    )
    placement: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = Field(
        "PACK", description="Ray's strategy for the processes that are placed together before the job starts."
    )
    place_timeout_s: float = Field(
        300.0, gt=0, le=86_400, description="Time limit for placing the servers and the smallest number of workers."
    )
    grow_s: float = Field(
        10.0, ge=0, le=3600, description="Time for which a script's job waits for more workers than it needs at least."
    )
    insecure: bool = Field(
        False, description="Listen beyond loopback without TLS and a token, in a network that you trust."
    )


OWN = tuple(RaySettings.model_fields)


class RayTrainSettings(TrainSettings, RaySettings):
    """Train a built-in model on a Ray cluster."""

    groups: ClassVar[dict[str, tuple[str, ...]]] = {"Ray": OWN, **TrainSettings.groups}
    follows: ClassVar[str] = "[SCRIPT [ARGUMENTS]]"


class RayRunSettings(RunSettings, RaySettings):
    """Train a Keras script on a Ray cluster."""

    groups: ClassVar[dict[str, tuple[str, ...]]] = {"Ray": OWN, **RunSettings.groups}


def with_range(argv: Sequence[str]) -> list[str]:
    """Return a command line in which `--workers A..B` is written as two flags.

    Raises:
        ValueError: The range is invalid.
    """
    found: list[str] = []
    for argument in argv:
        name, equals, value = argument.partition("=")
        is_value = not equals and found[-1:] == ["--workers"]
        if ".." in argument and (is_value or name == "--workers"):
            least, most = workers_of(argument if is_value else value)
            found[-1:] = found[-1:] if not is_value else []
            found += [f"--workers={least}", f"--max-workers={most}"]
        else:
            found.append(argument)
    return found
