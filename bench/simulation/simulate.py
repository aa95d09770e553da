"""`downpour simulate`: runs the server's shard and policies in virtual time."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from downpour.bench.report import writable
from downpour.bench.simulation.fixed_delay import run_delayed
from downpour.bench.simulation.problems import PROBLEMS, problem_of
from downpour.bench.simulation.run_statistics import OutcomeStatistics, Trajectory
from downpour.bench.simulation.service_times import SERVICES, draws_of, split, times
from downpour.bench.simulation.virtual_time import Cycle, Simulation
from downpour.protos.sentences.sentence import counted
from downpour.protos.settings import one_of, parse
from downpour.ps.config_checks import refusal_of, refusal_of_optimizer, refusal_of_steps, warnings_of
from downpour.ps.core.apply import UpdateOptions
from downpour.ps.core.consistency import MODES, consistency_of
from downpour.ps.core.optimizer import Optimizer
from downpour.ps.core.registry import forms, read, spec_of
from downpour.ps.core.rules.hyperparameters import Hyperparameters, known_hyperparameters, resolve
from downpour.ps.core.rules.update_rules import OPTIMIZERS
from downpour.ps.core.schedules import SCHEDULES, schedule_of
from downpour.ps.core.shard import Shard
from downpour.ps.core.staleness import POLICIES, compensation_of
from downpour.ps.optimizer_settings import OptimizerSettings, hyperparameters_of


def _services(value: str) -> str:
    for spec in split(value):
        read(spec, SERVICES)
    return value


class SimulateSettings(OptimizerSettings):
    """Simulate workers, a consistency mode and an optimizer in virtual time and print the result."""

    groups: ClassVar[dict[str, tuple[str, ...]]] = {
        "cluster": ("workers", "service", "server_service", "fixed_delay"),
        "asynchrony": (
            "mode", "staleness_policy", "fetch_every", "push_every", "schedule", "warm_up", "warm_start",
            "momentum_correction", "version_memory",
        ),
        "problem": ("problem", "updates", "burn_in", "seed"),
        "optimizer": ("optimizer", *known_hyperparameters()),
        "output": ("json_",),
    }  # fmt: skip

    workers: int = Field(4, ge=1, le=100_000, description="Number of workers P.")
    mode: Annotated[str, spec_of(MODES)] = Field("async", description=f"Consistency mode: {forms(MODES)}.")
    staleness_policy: Annotated[str, spec_of(POLICIES)] = Field(
        "none", description=f"Staleness compensation: {forms(POLICIES)}."
    )
    service: Annotated[str, AfterValidator(_services)] = Field(
        "exp:1", description=f"Time of a step, for all workers or one per worker: {forms(SERVICES)}."
    )
    server_service: Annotated[str, AfterValidator(_services)] | None = Field(
        None, description="Time of the server for a push; pushes are served one by one (default: none)."
    )
    fixed_delay: int | None = Field(
        None,
        ge=0,
        le=1_000_000,
        description="Fixed staleness of every gradient; workers take turns, one step at a time.",
    )
    fetch_every: int | None = Field(
        None, ge=1, le=100_000, description="Local steps between two pulls (default: as --push-every)."
    )
    push_every: int = Field(1, ge=1, le=100_000, description="Local steps per push.")
    schedule: Annotated[str, spec_of(SCHEDULES)] = Field(
        "constant", description=f"Learning rate by version: {forms(SCHEDULES)}."
    )
    warm_up: int = Field(0, ge=0, description="Versions over which the learning rate increases to its full value.")
    warm_start: int = Field(0, ge=0, description="Versions that worker 0 computes alone.")
    momentum_correction: bool = Field(False, description="Reduce the momentum by the part that asynchrony adds.")
    version_memory: int = Field(1024, ge=0, description="Memory for earlier weights in MiB, which dc_asgd needs.")
    problem: str = Field(
        "none",
        description=f"Problem to minimise: {', '.join(PROBLEMS)}, with parameters as in "
        "quadratic:h=1,sigma=0.1,dim=2,centers=0,1.",
    )
    updates: int = Field(10_000, ge=1, description="Versions after which the run ends.")
    burn_in: float = Field(0.25, ge=0, lt=1, description="Fraction of the updates excluded from mean and variance.")
    seed: int = Field(0, ge=0, lt=2**32, description="Random seed of service times and gradients.")
    optimizer: Annotated[str, one_of(OPTIMIZERS)] = Field("sgd", description=f"Optimizer: {', '.join(OPTIMIZERS)}.")
    learning_rate: float = Field(0.1, gt=0, description="Learning rate η.")
    json_: Annotated[str | None, AfterValidator(writable)] = Field(
        None, description="File for the result as JSON; - for standard output."
    )

    @property
    def overlap(self) -> bool:
        """Whether workers compute during an exchange, which they never do here."""
        return False

    @property
    def hyper(self) -> Hyperparameters:
        """The hyper-parameters of the optimizer."""
        return hyperparameters_of(self)

    @model_validator(mode="after")
    def _holds(self) -> Self:
        resolve(self.optimizer, self.hyper)
        refusal = refusal_of(self) or refusal_of_steps(self) or refusal_of_optimizer(self)
        if refusal:
            raise ValueError(refusal)
        for flag, text, count in (
            ("--service", self.service, self.workers),
            ("--server-service", self.server_service, 1),
        ):
            try:
                draws_of(text or "const:1", count, "workers" if count > 1 else "server")
            except ValueError as error:
                raise ValueError(f"{flag} {error}") from None
        try:
            problem_of(self.problem, self.seed, self.workers)
        except ValueError as error:
            raise ValueError(f"--problem {error}") from None
        local = consistency_of(self.mode).payload != "gradient" or self.push_every > 1 or (self.fetch_every or 1) > 1
        if self.fixed_delay is not None and local:
            raise ValueError("--fixed-delay cannot be combined with local steps; omit it")
        return self


def simulate(settings: SimulateSettings, observe: Callable[[int, np.ndarray], None] | None = None) -> dict[str, Any]:
    """Run a simulation and return the content of the JSON output.

    Args:
        settings: The settings of the simulation.
        observe: A callback that receives every version and its weights, if there is a problem.
    """
    problem = problem_of(settings.problem, settings.seed, settings.workers)
    trajectory = Trajectory(problem.optimum, problem.initial(), settings.updates, settings.burn_in, problem.noisy)

    def both(version: int, weights: np.ndarray) -> None:
        trajectory.observe(version, weights)
        if observe is not None:
            observe(version, weights)

    watch = None if settings.problem == "none" else both
    shard, draws = shard_of(settings), draws_of(settings.service, settings.workers, "workers")
    compute = [times(draw, (settings.seed, 0, number)) for number, draw in enumerate(draws)]
    in_flight = 0
    if settings.fixed_delay is not None:
        statistics = run_delayed(shard, problem, settings.updates, settings.fixed_delay, settings.workers, watch)
        pushes = statistics.accepted + statistics.dropped.total()
        seconds = sum(next(compute[push % settings.workers]) for push in range(pushes))  # in turns
    else:
        server = settings.server_service and draws_of(settings.server_service, 1, "server")[0]
        simulation = Simulation(
            shard, shard.consistency, problem, compute,
            times(server, (settings.seed, 1)) if server else None,
            Cycle(settings.push_every, settings.fetch_every or settings.push_every, settings.learning_rate), watch,
            settings.warm_start,
        )  # fmt: skip
        simulation.run(settings.updates)
        statistics, seconds, in_flight = simulation.statistics, simulation.now_s, simulation.in_flight_age
    trajectory.finite = trajectory.finite and not statistics.dropped["nonfinite"]
    result = _timing(shard, statistics, seconds, in_flight)
    if settings.problem != "none":
        result |= trajectory.json()
    if hasattr(problem, "total"):
        expected = problem.initial() - settings.learning_rate * problem.total
        result["largest_difference"] = float(np.abs(trajectory.last - expected).max())
    if hasattr(problem, "loss"):
        result["loss"] = problem.loss(trajectory.last.astype(np.float32))
    return result


def shard_of(settings: SimulateSettings) -> Shard:
    """Build a shard without workers, as a server with these settings builds it."""
    problem = problem_of(settings.problem, settings.seed, settings.workers)
    delay = settings.fixed_delay or 0
    return Shard(
        problem.initial(),
        Optimizer(settings.optimizer, settings.hyper, problem.dim),
        consistency_of(settings.mode),
        compensation_of(settings.staleness_policy),
        options=UpdateOptions(
            schedule_of(settings.schedule, settings.warm_up),
            settings.momentum_correction,
            settings.version_memory << 20,
            version_depth=delay // settings.workers + 2,
        ),
    )


def _timing(shard: Shard, statistics: OutcomeStatistics, seconds: float, in_flight: int) -> dict[str, Any]:
    return {
        "virtual_time_s": seconds,
        "updates": shard.version,
        "accepted": statistics.accepted,
        "dropped": statistics.dropped.total(),
        "dropped_by_reason": dict(statistics.dropped),
        "throughput": statistics.accepted / seconds if seconds else 0.0,
        "updates_per_s": shard.version / seconds if seconds else 0.0,
        "staleness": statistics.staleness_json(),
        "in_flight_age": in_flight,
        "updates_per_worker": statistics.updates,
        "clock_spread_max": statistics.clock_spread,
        "mean_queue_wait_s": statistics.wait_s / statistics.pushes if statistics.pushes else 0.0,
        "uncorrected": shard.uncorrected,
    }


def _report(settings: SimulateSettings, result: dict[str, Any], wall_s: float) -> str:
    staleness = result["staleness"]
    lines = [
        f"{counted(settings.workers, 'worker')}, mode {settings.mode}, compensation {settings.staleness_policy}, "
        f"service {settings.service}",
        f"virtual time {result['virtual_time_s']:.6g} s: {counted(result['updates'], 'update')} from "
        f"{counted(result['accepted'], 'push', 'pushes')}, {result['dropped']:,} dropped; "
        f"{result['throughput']:.6g} pushes/s",
        f"staleness: mean {staleness['mean']:.4g}, variance {staleness['var']:.4g}, maximum {staleness['max']}; "
        f"clocks differ by at most {result['clock_spread_max']}",
    ]
    if settings.server_service:
        lines.append(f"a push waits {result['mean_queue_wait_s']:.4g} s for the server")
    if "diverged" in result and result["mean"] is not None:
        lines.append(
            f"weights: mean {result['mean']:.6g}, variance {result['var']:.6g}" + ", diverged" * result["diverged"]
        )
    elif result.get("diverged"):
        lines.append("weights: diverged")
    lines.append(f"{wall_s:.2f} s of real time, {result['accepted'] / wall_s:,.0f} pushes/s")
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """Run `downpour simulate` and return its exit status."""
    settings = parse(SimulateSettings, argv, "downpour simulate")
    for warning in warnings_of(settings, virtual=True):
        print(f"downpour simulate: warning: {warning}", file=sys.stderr)
    began_s = time.perf_counter()
    try:
        result = simulate(settings)
    except ValueError as error:
        print(f"downpour simulate: {error}", file=sys.stderr)
        return 1
    wall_s = time.perf_counter() - began_s
    text = json.dumps({"settings": settings.model_dump(exclude={"json_"}), **result, "wall_s": wall_s}, indent=2)
    if settings.json_ == "-":
        print(text)
        return 0
    if settings.json_:
        Path(settings.json_).write_text(text + "\n")
    print(_report(settings, result, wall_s))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
