"""`downpour simulate`: its grammar, what it reports, and predictions that the conformance table does not hold."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from downpour.bench.simulation import service_times, simulate
from downpour.bench.simulation.problems import PROBLEMS, problem_of
from downpour.bench.simulation.simulate import SimulateSettings
from downpour.ps.core.consistency import MODES
from downpour.ps.core.staleness import POLICIES

pytestmark = pytest.mark.slow

KEYS = {
    "virtual_time_s", "updates", "accepted", "dropped", "throughput", "staleness", "updates_per_worker",
    "clock_spread_max", "mean_queue_wait_s",
}  # fmt: skip


def run(**settings: Any) -> dict[str, Any]:
    return simulate.simulate(SimulateSettings(**settings))


@pytest.mark.parametrize("mode", [row.example for row in MODES.values()])
@pytest.mark.parametrize("problem", PROBLEMS)
def test_every_mode_runs_on_every_problem(mode: str, problem: str) -> None:
    result = run(mode=mode, problem=problem, updates=200, workers=4, seed=1)
    assert result.keys() >= KEYS
    assert result["updates"] == 200
    assert sum(result["updates_per_worker"]) == result["accepted"]
    assert sum(result["staleness"]["histogram"].values()) == result["accepted"]
    assert result["virtual_time_s"] > 0
    if problem != "none":
        assert result.keys() >= {"mean", "var", "diverged"} and not result["diverged"]


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_converges_on_a_quadratic(policy: str) -> None:
    result = run(staleness_policy=policy, problem="quadratic:h=1", updates=1500, workers=4, learning_rate=0.05)
    assert result["distance"] < 1e-3 and not result["diverged"]


def test_a_seed_repeats_a_run_and_another_does_not() -> None:
    one, same, other = (run(updates=500, problem="quadratic:h=1,sigma=1", seed=seed) for seed in (3, 3, 4))
    assert one == same and one["final"] != other["final"]


@pytest.mark.parametrize(
    ("text", "specs"),
    [
        ("exp:1", ["exp:1"]),
        ("shifted_exp:1,2,const:3", ["shifted_exp:1,2", "const:3"]),
        ("lognormal:-1,.5,pareto:2", ["lognormal:-1,.5", "pareto:2"]),
    ],
)
def test_the_grammar_of_service_times(text: str, specs: list[str]) -> None:
    assert service_times.split(text) == specs


@pytest.mark.parametrize(
    ("spec", "mean"),
    [
        ("exp:4", 0.25),
        ("const:3", 3.0),
        ("shifted_exp:1,2", 1.5),
        ("pareto:3", 1.5),
        ("lognormal:0,0.5", math.exp(0.125)),
    ],
)
def test_service_times_have_their_mean(spec: str, mean: float) -> None:
    draws = service_times.times(service_times.draws_of(spec, 1, "workers")[0], (0,))
    assert np.mean([next(draws) for _ in range(20_000)]) == pytest.approx(mean, rel=0.05)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--service=exp"], "--service must be written exp:RATE"),
        (["--service=exp:0"], "RATE a finite number above 0"),
        (
            ["--service=exp:1,exp:2", "--workers=3"],
            "--service must be given once or for each of 3 workers; received 2",
        ),
        (["--service=gamma:1"], "must be one of exp:RATE, const:SECONDS"),
        (["--problem=cubic"], "--problem must be one of none, linear, quadratic, logistic"),
        (["--problem=quadratic:x=1"], "quadratic must have only h, sigma, dim, centers"),
        (
            ["--problem=quadratic:centers=1,2,3", "--workers=2"],
            "must be at most 2, as there are workers; received 3",
        ),
        (["--mode=ksync:5", "--workers=4"], "--mode ksync:5 waits for 5 workers"),
        (["--mode=softsync"], "must be written softsync:C"),
        (["--staleness-policy=inverted"], "did you mean inverse?"),
        (["--problem=none:x=1"], "--problem none must have no parameters; received 'x'"),
        (["--problem=quadratic:h"], "quadratic must have parameters of the form NAME=VALUE; received 'h'"),
        (["--problem=quadratic:h=1,2"], "of the form NAME=VALUE; received '2'"),
        (["--problem=quadratic:h=1,h=2"], "quadratic must have h once; received it again as '2'"),
        (["--server-service=exp:1,exp:2"], "--server-service must be given once; received 2"),
        (["--fetch-every=2", "--mode=easgd:1,4"], "--mode easgd:1,4 prescribes the number of local steps"),
        (["--json=/nowhere/at/all.json"], "--json must be - or a file in an existing folder"),
        (["--fixed-delay=2", "--mode=localsgd:2"], "--fixed-delay cannot be combined with local steps"),
    ],
)
def test_an_invalid_simulation_is_refused_with_the_reason(
    flags: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as status:
        simulate.main(flags)
    assert status.value.code == 2
    assert says in capsys.readouterr().err


def test_json_goes_to_standard_output_or_a_file(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate.main(["--updates=50", "--json=-"]) == 0
    assert json.loads(capsys.readouterr().out).keys() >= KEYS
    assert simulate.main(["--updates=50", f"--json={tmp_path / 'out.json'}"]) == 0
    assert json.loads((tmp_path / "out.json").read_text())["updates"] == 50
    assert "staleness: mean" in capsys.readouterr().out


# ------------------------------------------------------------------ predictions beyond the table


def test_noise_ball_of_sequential_descent() -> None:
    """Var w = ησ² / (h(2 − ηh)) for w' = w − η(hw + σn)."""
    result = run(workers=1, problem="quadratic:h=2,sigma=0.5", learning_rate=0.2, updates=60_000)
    assert result["var"] == pytest.approx(0.2 * 0.25 / (2 * (2 - 0.4)), rel=0.05)
    assert abs(result["mean"]) < 0.02


def test_async_weighs_optima_by_the_workers_shares() -> None:
    """Σ p_i c_i with p_i = μ_i/Σμ: rates 3:1 and optima 0 and 1 meet at 1/4; 1/τ takes from the slow one."""
    settings: dict[str, Any] = dict(
        workers=2,
        service="exp:3,exp:1",
        problem="quadratic:h=1,centers=0,1",
        learning_rate=0.01,
        updates=40_000,
    )
    plain = run(**settings)
    assert plain["mean"] == pytest.approx(0.25, rel=0.05)
    assert run(staleness_policy="inverse", **settings)["mean"] < 0.8 * plain["mean"]


def test_bsp_weighs_optima_equally_at_all_speeds() -> None:
    result = run(
        workers=2,
        service="exp:9,exp:1",
        mode="bsp",
        problem="quadratic:h=1,centers=0,1",
        learning_rate=0.1,
        updates=2000,
    )
    assert result["mean"] == pytest.approx(0.5, abs=1e-3)


def test_softsync_staleness_falls_with_the_group() -> None:
    """Σ τ counts updates, and c pushes make one: mean τ → (P − 1)/c or somewhat less within a group."""
    means = [run(workers=16, mode=f"softsync:{c}", updates=4000 // c)["staleness"]["mean"] for c in (1, 4, 16)]
    assert means[0] == pytest.approx(15, rel=0.05)
    assert means[1] == pytest.approx(15 / 4, rel=0.15)
    assert means[2] == pytest.approx(15 / 16, rel=0.25)


def test_kasync_equals_async_with_one_gradient_and_bsp_with_all() -> None:
    for one, other in (
        ("kasync:1", "async"),
        ("kasync:4", "bsp"),
        ("ksync:4", "bsp"),
        ("backup:4", "bsp"),
        ("softsync:1", "async"),
    ):
        left, right = (run(mode=mode, problem="quadratic:h=1,sigma=1", updates=300) for mode in (one, other))
        assert left["final"] == pytest.approx(right["final"], rel=1e-5), (one, other)
        assert left["virtual_time_s"] == right["virtual_time_s"]


def test_ringmaster_bounds_staleness_and_counts_what_it_drops() -> None:
    result = run(mode="ringmaster:4", workers=8, updates=3000)
    assert result["staleness"]["max"] == 3
    assert result["dropped_by_reason"] == {"stale": result["dropped"]} and result["dropped"] > 1000


def test_rennala_uses_only_fresh_gradients() -> None:
    result = run(mode="rennala:3", workers=6, updates=1000)
    assert result["staleness"]["max"] == 0 and result["accepted"] == 3000
    assert set(result["dropped_by_reason"]) == {"discarded"}


def test_a_server_that_takes_time_is_a_queue_with_finitely_many_sources() -> None:
    """Machine repair with P = 3, λ = 1, μ = 2: throughput and wait from the birth-death balance."""
    workers, arrival, service = 3, 1.0, 2.0
    weights = [math.perm(workers, n) * (arrival / service) ** n for n in range(workers + 1)]
    busy = 1 - weights[0] / sum(weights)
    waiting = sum(max(0, n - 1) * weight for n, weight in enumerate(weights)) / sum(weights)
    result = run(workers=3, service="exp:1", server_service="exp:2", updates=60_000)
    assert result["throughput"] == pytest.approx(service * busy, rel=0.03)
    assert result["mean_queue_wait_s"] == pytest.approx(waiting / (service * busy), rel=0.06)


def test_constant_times_saturate_the_server() -> None:
    result = run(workers=10, service="const:1", server_service="const:0.5", updates=2000)
    assert result["throughput"] == pytest.approx(2.0, rel=0.01)
    assert result["mean_queue_wait_s"] == pytest.approx(10 * 0.5 - 1 - 0.5, rel=0.02)


@pytest.mark.parametrize("delay", [0, 1, 5])
def test_a_fixed_delay_is_the_staleness(delay: int) -> None:
    histogram = run(fixed_delay=delay, updates=100)["staleness"]["histogram"]
    assert histogram[str(delay)] == 100 - delay


@pytest.mark.parametrize(("change", "diverges"), [(0.95, False), (1.05, True)])
@pytest.mark.parametrize("delay", [0, 2, 10])
def test_divergence_is_reported_at_the_limit(delay: int, change: float, diverges: bool) -> None:
    limit = 2 * math.sin(math.pi / (2 * (2 * delay + 1)))
    result = run(fixed_delay=delay, problem="quadratic:h=1", learning_rate=change * limit, updates=2000)
    assert result["diverged"] is diverges


def test_weights_that_overflow_end_the_run() -> None:
    result = run(problem="quadratic:h=1", learning_rate=50.0, updates=10_000)
    assert result["diverged"] and result["dropped_by_reason"]["nonfinite"] and result["updates"] < 10_000


def test_linear_sums_are_exact() -> None:
    assert run(problem="linear:dim=3", learning_rate=2.0**-8, updates=2000)["largest_difference"] == 0.0


def test_momentum_correction_subtracts_the_momentum_of_asynchrony() -> None:
    settings: dict[str, Any] = dict(
        workers=4,
        optimizer="momentum",
        momentum=0.9,
        problem="quadratic:h=1",
        learning_rate=0.06,
        updates=3000,
    )
    assert run(**settings)["diverged"]
    assert not run(momentum_correction=True, **settings)["diverged"]


def test_a_warm_start_begins_with_one_worker() -> None:
    result = run(workers=4, warm_start=100, updates=400)
    assert result["updates_per_worker"][0] >= 100 + 50
    assert result["staleness"]["histogram"]["0"] >= 100


def test_gradients_without_kept_base_weights_are_counted() -> None:
    settings: dict[str, Any] = dict(
        workers=4, staleness_policy="dc_asgd", problem="quadratic:h=1,dim=1000", updates=100
    )
    assert run(**settings)["uncorrected"] == 0
    forgetful = run(version_memory=0, **settings)
    # A fresh gradient needs no correction, and so no old weights.
    assert forgetful["uncorrected"] == 100 - forgetful["staleness"]["histogram"]["0"] > 50


def test_logistic_regression_finds_its_optimum() -> None:
    result = run(problem="logistic:batch=100", workers=4, learning_rate=0.5, updates=4000)
    assert result["distance"] < 0.3
    assert result["loss"] <= problem_of("logistic:batch=100", 0, 4).loss(np.zeros(10, np.float32))  # type: ignore[attr-defined]
