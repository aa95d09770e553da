"""The rows of Ray's and PyTorch's parameter servers; `make peers-test` trains with them in its own environment."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import numpy as np
import pytest

from downpour.bench.competitors.competitors import COMPETITORS, TrainingSpec
from downpour.bench.peers import rows, torch_task
from downpour.bench.peers.rows import PEERS
from downpour.bench.training import baselines
from downpour.worker.catalog.datasets import load
from downpour.worker.catalog.models import MODELS

SAMPLES, EPOCHS = 6400, 4


def test_the_peers_are_competitors_of_their_own_names() -> None:
    assert set(PEERS).isdisjoint(COMPETITORS) and set(baselines.EVERY) == {*PEERS, *COMPETITORS}
    assert set(torch_task.NETWORKS) == set(baselines.SAMPLES) <= set(MODELS)


def test_peers_follow_the_chosen_competitors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert baselines.parse(["--peers", "--competitors", "fit"]).competitors == ["fit", *PEERS]
    assert baselines.parse([]).competitors == list(COMPETITORS)


@pytest.mark.parametrize("lacking", [("ray",), ("torch",), ("ray", "torch")])
def test_a_missing_package_is_named_with_what_installs_it(
    lacking: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in lacking else object())
    with pytest.raises(SystemExit) as ended:
        baselines.parse(["--peers"])
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert f"{' and '.join(lacking)} must be installed" in message and "[peers]" in message


def test_the_modules_of_the_peers_load_neither_package() -> None:
    for name in ("ray_actors", "torch_rpc"):
        importlib.import_module(f"downpour.bench.peers.{name}")


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_the_result_counts_every_sample_and_reports_the_last_epoch(epochs: int) -> None:
    flags = argparse.Namespace(epochs=epochs)
    early, late = torch_task.StepMetrics(64.0, 0, 32), torch_task.StepMetrics(16.0, 24, 32)
    by_worker = [[early] * 10 * (epochs - 1) + [late] * 10, [early] * 4 * (epochs - 1) + [late] * 4]
    found = torch_task.result(flags, by_worker, 2.0)
    assert found["samples"] == 14 * 32 * epochs and found["samples_per_s"] == found["samples"] / 2.0
    assert (found["loss"], found["accuracy"]) == (0.5, 0.75)


@pytest.mark.peers
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", PEERS)
def test_a_peer_learns_from_as_many_samples_as_the_others(name: str, tmp_path: Path) -> None:
    mnist = load("mnist")
    data = tmp_path / "small.npz"
    np.savez(
        data, x_train=mnist.x_train[:SAMPLES], y_train=mnist.y_train[:SAMPLES], x_test=mnist.x_test[:100],
        y_test=mnist.y_test[:100],
    )  # fmt: skip
    job = TrainingSpec("sigmoid100", str(data), EPOCHS, 32, 0.1, 0)
    found = PEERS[name].run(job, tmp_path, 300.0)
    assert found["samples"] == SAMPLES * EPOCHS and found["samples_per_s"] > 0
    assert found["accuracy"] > 0.8 and found["loss"] < 0.8


@pytest.mark.peers
def test_the_packages_are_installed_here() -> None:
    assert rows.refusal() == ""


@pytest.mark.peers
def test_the_models_have_as_many_weights_as_those_of_keras() -> None:
    sizes = {"sigmoid100": 79_510, "cnn": 2_185_278}
    for name, size in sizes.items():
        model = torch_task.NETWORKS[name](10)
        assert sum(parameter.numel() for parameter in model.parameters()) == size
