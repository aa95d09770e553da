"""Checks across settings: combinations that cannot work, and combinations that work but are unwise."""

from __future__ import annotations

import math
from typing import Protocol

from downpour.protos.sentences.sentence import joined, sentence
from downpour.ps.core.consistency import MODES, consistency_of
from downpour.ps.core.rules.hyperparameters import Hyperparameters, resolve
from downpour.ps.core.rules.update_rules import OPTIMIZERS
from downpour.ps.core.staleness import POLICIES, compensation_of


class AsynchronySettings(Protocol):
    """The settings that determine how asynchrony affects a job."""

    @property
    def mode(self) -> str:
        """The consistency mode, as `ssp:2`: a name of `MODES` and its parameters."""

    @property
    def staleness_policy(self) -> str:
        """The compensation of staleness: a name of `POLICIES` and its parameters."""

    @property
    def workers(self) -> int:
        """The number of workers that training waits for."""

    @property
    def optimizer(self) -> str:
        """The name of the servers' optimizer in `OPTIMIZERS`."""

    @property
    def hyper(self) -> Hyperparameters:
        """The given hyperparameters of the optimizer; those that are not given are None."""

    @property
    def momentum_correction(self) -> bool:
        """Whether the momentum is reduced by the implicit momentum of asynchrony."""

    @property
    def schedule(self) -> str:
        """The learning rate by version: a name of `SCHEDULES` and its parameters."""

    @property
    def warm_up(self) -> int:
        """The number of versions over which the learning rate rises to its full value."""


class IntervalSettings(Protocol):
    """The settings that determine what a worker does between two exchanges."""

    @property
    def mode(self) -> str:
        """The consistency mode, as `ssp:2`: a name of `MODES` and its parameters."""

    @property
    def push_every(self) -> int:
        """The number of local steps whose gradients one push sums up."""

    @property
    def fetch_every(self) -> int | None:
        """The number of local steps between two pulls; None for as many as `push_every`."""

    @property
    def overlap(self) -> bool:
        """Whether the next gradient is computed while a push-pull is in flight."""


def refusal_of(settings: AsynchronySettings) -> str:
    """Return why a job with these settings would never progress or be meaningless; empty if it can work."""
    mode, policy = consistency_of(settings.mode), compensation_of(settings.staleness_policy)
    if mode.workers_needed > settings.workers:
        return sentence(
            "mode_needs_workers", mode=settings.mode, needed=str(mode.workers_needed), workers=str(settings.workers)
        )
    if mode.payload == "replica" and settings.staleness_policy != "none":
        return sentence("weights_have_no_staleness", mode=settings.mode, policy=settings.staleness_policy)
    if mode.payload != "gradient" and settings.momentum_correction:
        return sentence("momentum_is_in_workers", mode=settings.mode)
    if mode.payload == "difference" and policy.corrects:
        others = [name for name, row in POLICIES.items() if not compensation_of(row.example or name).corrects]
        values = {"policy": settings.staleness_policy, "mode": settings.mode, "others": _either(others)}
        return sentence("policy_corrects_gradients", **values)
    if steps_at_constant_rate(settings.mode) and (settings.schedule != "constant" or settings.warm_up):
        return sentence(
            "rate_is_constant", mode=settings.mode, schedule=settings.schedule, warm_up=str(settings.warm_up)
        )
    return ""


def refusal_of_optimizer(settings: AsynchronySettings) -> str:
    """Return why a job with these settings cannot use its optimizer; empty if it can."""
    if settings.momentum_correction and not resolve(settings.optimizer, settings.hyper).get("momentum"):
        others = [name for name, rule in OPTIMIZERS.items() if rule.defaults.get("momentum")]
        return sentence("no_momentum", optimizer=settings.optimizer, others=_either(others))
    return ""


def steps_at_constant_rate(mode: str) -> bool:
    """Return whether workers make the steps of a mode, at a constant learning rate; False if there is no such mode."""
    try:
        return consistency_of(mode).payload != "gradient"
    except ValueError:
        return False


def refusal_of_steps(settings: IntervalSettings) -> str:
    """Return why a worker's intervals and overlap fit neither the mode nor each other; empty if they do."""
    mode, push_every = consistency_of(settings.mode), settings.push_every
    fetch_every = settings.fetch_every or push_every
    if mode.payload != "gradient" and (push_every, fetch_every) != (1, 1):
        return sentence("mode_has_steps", mode=settings.mode, push_every=str(push_every), fetch_every=str(fetch_every))
    if settings.overlap and not (mode.payload == "gradient" and mode.stale_gradients):
        modes = ((name, consistency_of(row.example)) for name, row in MODES.items())
        others = [name for name, each in modes if each.payload == "gradient" and each.stale_gradients]
        return sentence("overlap_and_mode", mode=settings.mode, others=_either(others))
    if settings.overlap and fetch_every != push_every:
        return sentence("overlap_and_fetch", push_every=str(push_every), fetch_every=str(fetch_every))
    return ""


def warnings_of(settings: AsynchronySettings, virtual: bool = False) -> list[str]:
    """Return a sentence, with advice, for each combination of settings that works but is unwise.

    Args:
        settings: The settings of a job.
        virtual: Whether time is virtual, so that steps can be interrupted.
    """
    mode, policy = consistency_of(settings.mode), compensation_of(settings.staleness_policy)
    learning_rate = resolve(settings.optimizer, settings.hyper)["learning_rate"]
    found = mode.warnings(settings.workers, learning_rate, virtual)
    if mode.payload != "gradient" and settings.optimizer != "sgd":
        found.append(sentence("optimizer_not_used", mode=settings.mode, optimizer=settings.optimizer))
    if policy.favours_fast_workers and mode.weighs_slow_workers:
        found.append(sentence("slow_workers_weigh_less", policy=settings.staleness_policy))
    if settings.staleness_policy != "none" and not mode.stale_gradients:
        found.append(sentence("nothing_is_stale", policy=settings.staleness_policy, mode=settings.mode))
    return found + _unstable_step(settings)


def _unstable_step(settings: AsynchronySettings) -> list[str]:
    """Return a warning if the step lies where asynchronous descent with unit curvature diverges.

    With delay τ: ηh < 2 sin(π / (2(2τ + 1))); η over 1 − μ stands for the step with momentum μ.
    """
    if not OPTIMIZERS[settings.optimizer].linear or settings.staleness_policy != "none":
        return []
    mode, hyper = consistency_of(settings.mode), resolve(settings.optimizer, settings.hyper)
    for worker in range(settings.workers):
        mode.join(worker)
    staleness, momentum = mode.expected_staleness(), hyper.get("momentum", 0.0)
    if settings.momentum_correction:
        momentum = max(0.0, momentum - staleness / (1.0 + staleness))
    step, limit = hyper["learning_rate"] / (1.0 - momentum), 2 * math.sin(math.pi / (2 * (2 * staleness + 1)))
    if staleness == 0 or step <= limit:
        return []
    values = {"step": f"{step:.3g}", "staleness": f"{staleness:.3g}", "curvature": f"{limit / step:.2g}"}
    return [sentence("step_diverges", **values)]


def _either(names: list[str]) -> str:
    """Return the names as an English list, such as `a, b or c`."""
    if len(names) < 2:
        return names[0] if names else ""
    return sentence("last_choice", first=joined(names[:-1], "other_choice"), rest=names[-1])
