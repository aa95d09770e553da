"""The job of a seed: its shape and its faults, as far as the flags of `downpour simulate-job` do not determine them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from downpour.bench.world.faults import ALL, DRAWN, KINDS, Fault, draw, parse_faults
from downpour.bench.world.job_shape import JobShape
from downpour.bench.world.profiles import LARGE_MODEL_BYTES, NAMES, WITHOUT, Profile, drawn, profile_of, settings_of
from downpour.protos.settings import Settings

COMMAND = "downpour simulate-job"
MODES = (
    "async", "async", "async", "ssp:1", "ssp:3", "bsp", "kasync:2", "softsync:2", "backup:1", "ringmaster:6",
    "rennala:2", "localsgd:2",
)  # fmt: skip


# Besides plain gradients; with "async" only.
VARIANTS: tuple[tuple[tuple[str, Any], ...], ...] = (
    (), (), (), (), (), (),
    (("overlap", True),),
    (("push_every", 2),),
    (("overlap", True), ("staleness_policy", "dc_asgd")),
    (("staleness_policy", "delay_adaptive:1"), ("schedule", "linear:12")),
)  # fmt: skip
OF_ASYNC = {"overlap", "staleness_policy"}  # settings of a profile that other modes do not have
RESTARTS_S = (0.3, 0.3, 0.3, 8.0)  # mean times until a process runs again: a launcher, and an operator
OFTEN = (*DRAWN, "kill", "killat", "killat", "reset", "reset", "lose", "lose")  # most recovery code handles these kinds


def _seed_range(value: str) -> str:
    first, dots, last = value.partition("..")
    if not dots or not first.isdecimal() or not last.isdecimal() or int(first) > int(last):
        raise ValueError("must be A..B, the first and the last seed")
    return value


def _kinds(value: str) -> str:
    if value not in ("auto", "none") and ":" not in value:
        unknown = set(value.split(",")) - set(KINDS)
        if unknown:
            raise ValueError(f"must be auto, none, faults KIND:TARGET@AT[+SECONDS], or kinds of {', '.join(KINDS)}")
    elif ":" in value:
        parse_faults(value)
    return value


def _profile(value: str) -> str:
    if value not in NAMES:
        raise ValueError(f"must be one of {', '.join(NAMES)}")
    return value


class SimulateJobSettings(Settings):
    """Run whole jobs in a simulated world with faults, and check that nothing is lost."""

    seed: int | None = Field(None, ge=0, description="Seed of one job (default: 1).")
    seeds: Annotated[str, AfterValidator(_seed_range)] | None = Field(
        None, description="Range of seeds A..B, one job each."
    )
    shards: int | None = Field(None, ge=1, le=8, description="Number of shards (default: drawn from the seed).")
    workers: int | None = Field(None, ge=1, le=16, description="Number of workers (default: drawn from the seed).")
    epochs: int | None = Field(None, ge=1, le=7, description="Number of epochs (default: drawn from the seed).")
    samples: int | None = Field(None, ge=4, le=4096, description="Samples per epoch (default: drawn from the seed).")
    mode: str | None = Field(None, description="Consistency mode (default: drawn from the seed).")
    faults: Annotated[str, AfterValidator(_kinds)] = Field(
        "auto", description="Faults: auto, none, kinds such as kill,reset, or faults KIND:TARGET@AT[+SECONDS]."
    )
    count: int | None = Field(None, ge=0, le=50, description="Number of faults (default: drawn from the seed).")
    profile: Annotated[str, AfterValidator(_profile)] | None = Field(
        None, description="Profile of the job and its faults (default: drawn from the seed if the faults are auto)."
    )
    processes: int = Field(0, ge=0, le=256, description="Number of processes for a range of seeds. 0: one per core.")
    budget_s: float = Field(
        0.0, ge=0, description="Stop a range of seeds after this processor time of each process, in seconds. 0: never."
    )
    stop: bool = Field(False, description="Stop a range of seeds at the first failure.")
    shrink: bool = Field(True, description="Remove the faults without which a job still fails.")
    repeat: int = Field(
        1,
        ge=1,
        le=10_000,
        description="Run a single job so often, each time in a new process, and compare the digests.",
    )
    journal: bool = Field(False, description="Show the journal of a single job even if the job has not failed.")


def shape_of(seed: int, settings: SimulateJobSettings) -> JobShape:
    """Return the job of a seed, which determines everything that the settings do not."""
    rng = random.Random(f"shape {seed}")
    profile = profile_of(seed, profile_name(seed, settings))
    chosen = settings_of(seed, profile) if profile is not None else {}
    values: dict[str, Any] = {
        "shards": rng.choice((1, 1, 2, 3)),
        "workers": rng.choice((1, 2, 3, 3, 4)),
        "epochs": rng.choice((1, 2, 2, 3)),
        "mode": rng.choice(MODES),
    }
    samples = rng.choice((24, 48, 49, 62))
    job = {name: getattr(settings, name) or chosen.get(name, value) for name, value in values.items()}
    own = {
        "batch_size": rng.choice((3, 4, 8)),
        "lease_batches": rng.choice((1, 2, 5)),
        "checkpoint_every": rng.choice(("0.2s", "1s", "7", "off")),
        "session_s": rng.choice((2.0, 5.0, 10.0)),
    }
    fixed = {
        "seed": seed % 2**32, "learning_rate": 0.125, "optimizer": "sgd", "transport": "grpc", "record": "off",
        "tensorboard": False, "validation_split": rng.choice((0.0, 0.1)),
    }  # fmt: skip
    count = rng.choice((0, 1, 2, 3, 3, 5))
    if job["mode"] not in ("async", settings.mode) and job["workers"] < 2:
        job["mode"] = "async"
    own |= dict(_variant(rng, job["mode"]))
    if job["mode"] == "async" or not OF_ASYNC & chosen.keys():
        own |= {name: value for name, value in chosen.items() if name not in job}
    padding, slow_links = rng.choice((0, 0, 0, LARGE_MODEL_BYTES)), rng.random() < 0.4
    if profile is not None:
        padding = LARGE_MODEL_BYTES if profile.large_model else padding
        slow_links = slow_links if profile.slow_links is None else profile.slow_links
    faults = _faults(seed, settings, profile, job, count)
    return JobShape(
        {**job, **own, **fixed}, settings.samples or samples, tuple(faults), padding, slow_links,
        restart_s=random.Random(f"restart {seed}").choice(RESTARTS_S),
    )  # fmt: skip


def profile_name(seed: int, settings: SimulateJobSettings) -> str:
    """Return the name of the profile of a job."""
    return settings.profile or (drawn(seed) if settings.faults == "auto" else WITHOUT)


def _faults(
    seed: int, settings: SimulateJobSettings, profile: Profile | None, job: Mapping[str, Any], count: int
) -> list[Fault]:
    """Return the faults of a job.

    They have a source of randomness of their own, so that the job stays the same if its faults are given as text.
    """
    if settings.faults == "none":
        return []
    if ":" in settings.faults:
        return parse_faults(settings.faults)
    rng = random.Random(f"faults of {seed}")
    kinds: Sequence[str] = OFTEN if settings.faults == "auto" else settings.faults.split(",")
    if profile is not None:
        count = rng.choice(profile.counts)
        kinds = profile.kinds if settings.faults == "auto" else kinds
    count = count if settings.count is None else settings.count
    return draw(rng, job["shards"], job["workers"], kinds, count, ALL if profile is None else profile.among)


def _variant(rng: random.Random, mode: str) -> tuple[tuple[str, Any], ...]:
    """Return the settings of a less frequent way of training."""
    chosen = rng.choice(VARIANTS)
    return chosen if mode == "async" else ()


def reproduction(seed: int, settings: SimulateJobSettings, faults: str) -> str:
    """Return the command that repeats a job."""
    names = ("shards", "workers", "epochs", "samples", "mode", *(("count",) if ":" not in faults else ()))
    flags = [f"--{name}={getattr(settings, name)}" for name in names if getattr(settings, name) is not None]
    profile = profile_name(seed, settings)
    flags += [f"--profile={profile}"] if profile != WITHOUT else []
    return " ".join([COMMAND, f"--seed={seed}", *flags, f"--faults='{faults or 'none'}'"])
