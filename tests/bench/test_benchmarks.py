"""The benchmarks that users run: each answers, and their arithmetic is right."""

from __future__ import annotations

import argparse
import importlib
import re

import numpy as np
import pytest

from downpour.bench.__main__ import BENCHES
from downpour.bench.emulated import Run, gradient_of, measured, weights_of
from downpour.bench.training import modes_real


@pytest.mark.parametrize("name", BENCHES)
def test_every_bench_lists_its_flags(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"downpour.bench.{BENCHES[name].module}").main(["--help"])
    assert ended.value.code == 0
    assert f"downpour bench {name}" in capsys.readouterr().out


@pytest.mark.slow
def test_emulated_workers_report_the_loss_of_each_local_step() -> None:
    run = Run(2, 0.005, seconds=3.0, learning_rate=0.3, period=4, look_s=0.3, flags=("--mode", "localsgd:4"))
    found = measured(run)
    seconds, versions, losses = zip(*found["curve"], strict=True)
    assert len(versions) >= 3 and list(versions) == sorted(versions) and list(seconds) == sorted(seconds)
    assert losses[-1] < losses[0] and versions[-1] <= found["applied"]
    assert modes_real.lines_of({"localsgd:4": found["curve"]})[2].startswith("| `localsgd:4` |")


def test_the_emulated_gradient_is_the_slope_of_its_loss() -> None:
    draw = np.random.default_rng(0)
    flat, x, y = weights_of(0).astype(np.float64), draw.random((4, 784)), np.array([3, 1, 4, 1])

    def loss(at: np.ndarray) -> float:
        hidden = 1 / (1 + np.exp(-(x @ at[:78400].reshape(784, 100) + at[78400:78500])))
        scores = hidden @ at[78500:79500].reshape(100, 10) + at[79500:]
        return float(np.mean(np.log(np.exp(scores).sum(1)) - scores[np.arange(4), y]))

    gradient = gradient_of(flat, x, y)
    for index in draw.choice(len(flat), 20, replace=False).tolist() + [78450, 79000, 79505]:
        step = np.zeros_like(flat)
        step[index] = 1e-5
        assert gradient[index] == pytest.approx((loss(flat + step) - loss(flat - step)) / 2e-5, abs=1e-6)


@pytest.mark.parametrize("name", ["staleness", "kernels", "codecs", "baselines", "speedup"])
def test_a_misspelt_flag_of_a_benchmark_has_a_nearest_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"downpour.bench.{BENCHES[name].module}").main(["--quik"])
    assert ended.value.code == 2
    assert f"downpour bench {name}: unknown flag --quik (did you mean --quick?)" in capsys.readouterr().err


class Listed(Exception):
    """The parser of a benchmark, instead of its result."""


@pytest.mark.parametrize("name", BENCHES)
def test_each_flag_of_a_benchmark_has_a_sentence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def listed(parser: argparse.ArgumentParser, *_: object) -> None:
        raise Listed(parser)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", listed)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", listed)
    with pytest.raises(Listed) as found:
        importlib.import_module(f"downpour.bench.{BENCHES[name].module}").main([])
    parser = found.value.args[0]
    for action in parser._actions:
        text = re.sub(r" \[DOWNPOUR_\w+\]$", "", action.help or "")
        assert re.fullmatch(r"[A-Z].*\.", text, re.S), f"{action.option_strings}: {text}"
        assert "{" not in text
