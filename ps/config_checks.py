"""Which settings cannot work together, and which are unwise."""

from __future__ import annotations

import math
from typing import Protocol

from downpour.ps.core.consistency import (
    BSP,
    EASGD,
    SSP,
    Backup,
    Consistency,
    KAsync,
    KSync,
    LocalSGD,
    Rennala,
    Ringmaster,
    Softsync,
    consistency_of,
)
from downpour.ps.core.hyperparameters import Hyperparameters, resolve
from downpour.ps.core.staleness import compensation_of

STEADY = ("sgd", "momentum", "nesterov")  # optimizers whose step grows with the gradient


class Asynchrony(Protocol):
    """The settings that are looked at."""

    @property
    def mode(self) -> str: ...  # noqa: D102
    @property
    def staleness(self) -> str: ...  # noqa: D102
    @property
    def workers(self) -> int: ...  # noqa: D102
    @property
    def optimizer(self) -> str: ...  # noqa: D102
    @property
    def hyper(self) -> Hyperparameters: ...  # noqa: D102
    @property
    def momentum_correction(self) -> bool: ...  # noqa: D102
    @property
    def warm_up(self) -> int: ...  # noqa: D102


class Steps(Protocol):
    """The settings of what a worker does between two exchanges."""

    @property
    def mode(self) -> str: ...  # noqa: D102
    @property
    def push_every(self) -> int: ...  # noqa: D102
    @property
    def fetch_every(self) -> int | None: ...  # noqa: D102
    @property
    def overlap(self) -> bool: ...  # noqa: D102


def refusal_of(settings: Asynchrony) -> str:
    """Why a job with these settings would wait for ever or make no sense; empty if it would not."""
    mode, policy = consistency_of(settings.mode), compensation_of(settings.staleness)
    if isinstance(mode, KAsync) and mode.count > settings.workers:
        return (
            f"--mode {settings.mode} waits for {mode.count} workers at a time and so needs at least as many; "
            f"received --workers {settings.workers}. It would wait for ever"
        )
    if isinstance(mode, EASGD) and settings.staleness != "none":
        return (
            f"--mode {settings.mode} exchanges weights, which have no staleness to make up for; received "
            f"--staleness {settings.staleness}. Leave it out"
        )
    if isinstance(mode, LocalSGD) and policy.corrects:
        return (
            f"--staleness {settings.staleness} corrects gradients, and --mode {settings.mode} pushes differences "
            "of weights. Use --staleness none, inverse or delay_adaptive"
        )
    if settings.momentum_correction and not resolve(settings.optimizer, settings.hyper).get("momentum"):
        return (
            f"--momentum-correction takes from an optimizer's momentum; received --optimizer {settings.optimizer} "
            "without any. Use momentum or nesterov, or set --momentum"
        )
    return ""


def refusal_of_steps(settings: Steps) -> str:
    """Why a worker's intervals and overlap do not go with the mode or with each other."""
    mode, push_every = consistency_of(settings.mode), settings.push_every
    fetch_every = settings.fetch_every or push_every
    if mode.payload != "gradient" and (push_every, fetch_every) != (1, 1):
        return (
            f"--mode {settings.mode} says itself how many local steps there are; received --push-every {push_every} "
            f"--fetch-every {fetch_every}. Leave both out"
        )
    if settings.overlap and (mode.payload != "gradient" or isinstance(mode, BSP | Rennala) and not _k_async(mode)):
        return (
            f"--overlap computes from weights one exchange old, and --mode {settings.mode} has no use for what is "
            "computed from them. Use --no-overlap, or --mode async, ssp, kasync, softsync or ringmaster"
        )
    if settings.overlap and fetch_every != push_every:
        return (
            f"--overlap needs weights with every push; received --push-every {push_every} --fetch-every {fetch_every}. "
            "Leave --fetch-every out"
        )
    return ""


def _k_async(mode: Consistency) -> bool:
    return isinstance(mode, KAsync) and not isinstance(mode, Backup)


def warnings_of(settings: Asynchrony, virtual: bool = False) -> list[str]:
    """What is unwise in settings that do work, each in a sentence with what to do.

    Args:
        settings: Of a job.
        virtual: Whether time is virtual: then steps can be interrupted.
    """
    return [text for text in (*_of_mode(settings, virtual), _of_step(settings)) if text]


def _of_mode(settings: Asynchrony, virtual: bool) -> list[str]:
    mode, workers, found = consistency_of(settings.mode), settings.workers, []
    if isinstance(mode, Rennala):
        if mode.count > 4 * workers:
            found.append(
                f"rennala collects {mode.count} gradients from {workers} workers for one step: steps will be few"
            )
    elif isinstance(mode, Softsync) and mode.count > workers:
        found.append(
            f"softsync averages {mode.count} pushes of {workers} workers: some will hold several gradients of one "
            f"worker from the same weights; a count of at most {workers} avoids that"
        )
    if isinstance(mode, Ringmaster) and mode.limit < workers:
        found.append(
            f"with {workers} equally fast workers staleness is {workers - 1}, and ringmaster drops what reaches "
            f"{mode.limit}: much work will be lost; a limit of {workers} or more keeps it"
        )
    if isinstance(mode, KSync) and not virtual:
        found.append(
            "a step that runs in a worker is not interrupted: ksync behaves like backup here, the late are dropped"
        )
    if isinstance(mode, Backup) and 2 * mode.count < workers:
        found.append(f"{settings.mode} drops the work of more than half of {workers} workers")
    if isinstance(mode, EASGD):
        alpha = mode.rho * resolve(settings.optimizer, settings.hyper)["learning_rate"]
        if alpha > 2 / 3:
            found.append(
                f"easgd's moving rate α = η·RHO is {alpha:.3g}: above (4 − 2ηh)/(4 − ηh), h the curvature, it diverges"
            )
    if isinstance(mode, EASGD | LocalSGD) and settings.optimizer != "sgd":
        found.append(
            f"{settings.mode} steps in the workers, by plain gradient descent: --optimizer {settings.optimizer} "
            "is not used"
        )
    if settings.staleness == "inverse" and isinstance(mode, SSP | Softsync):
        found.append("inverse makes slow workers count for less: their samples are under-weighted")
    if settings.staleness != "none" and isinstance(mode, BSP) and mode.expected_staleness() == 0.0:
        found.append(f"--staleness {settings.staleness} changes nothing in mode {settings.mode}: no gradient is stale")
    return found


def _of_step(settings: Asynchrony) -> str:
    """Whether the step lies where asynchronous descent with unit curvature diverges.

    With delay τ: ηh < 2 sin(π / (2(2τ + 1))); η over 1 − μ stands for the step with momentum μ.
    """
    if settings.optimizer not in STEADY or settings.staleness != "none":
        return ""
    mode, hyper = consistency_of(settings.mode), resolve(settings.optimizer, settings.hyper)
    for worker in range(settings.workers):
        mode.join(worker)
    staleness, momentum = mode.expected_staleness(), hyper.get("momentum", 0.0)
    if settings.momentum_correction:
        momentum = max(0.0, momentum - staleness / (1.0 + staleness))
    step, limit = hyper["learning_rate"] / (1.0 - momentum), 2 * math.sin(math.pi / (2 * (2 * staleness + 1)))
    if staleness == 0 or step <= limit:
        return ""
    return (
        f"a step of {step:.3g} (learning rate over 1 − momentum) at a staleness of {staleness:.3g} diverges where the "
        f"curvature is above {limit / step:.2g}: lower --learning-rate, use --momentum-correction or "
        "--staleness delay_adaptive"
    )
