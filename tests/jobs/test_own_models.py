"""`downpour train` and `evaluate` of a user's model: it is trained as it says, or refused before the first step."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.scripts import environment

MODULE = '''
import keras
from keras import layers

class Scaled(keras.layers.Layer):
    """A layer of the user's own, which a file alone does not explain."""
    def call(self, x):
        return x * 1.0

def logits():
    model = keras.Sequential([keras.Input((4,)), Scaled(), layers.Dense(3)])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model

def numbers():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    model.compile(loss="mean_squared_error")
    return model

def with_adam():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="softmax")])
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    return model

def rescaling():
    return keras.Sequential([keras.Input((8,)), layers.Rescaling(1 / 255), layers.Dense(2, activation="softmax")])
'''
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(MODULE)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4)).astype(np.float32)
    for name, y in (("classes", np.argmax(x[:, :3], 1)), ("numbers", x.sum(1))):
        np.savez(tmp_path / f"{name}.npz", x_train=x[:200], y_train=y[:200], x_test=x[200:], y_test=y[200:])
    y = rng.integers(0, 2, 600)
    pixels = np.clip(rng.normal(60 + 120 * y[:, None], 40, size=(600, 8)), 0, 255).astype(np.uint8)
    np.savez(tmp_path / "pixels.npz", x_train=pixels[:400], y_train=y[:400], x_test=pixels[400:], y_test=y[400:])
    return tmp_path


def downpour(folder: Path, *line: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "downpour.deploy.cli", *line]
    own = {**environment(), "PYTHONPATH": f"{folder}:{environment()['PYTHONPATH']}"}
    return subprocess.run(command, env=own, cwd=folder, capture_output=True, text=True, timeout=200)


def train(folder: Path, model: str, data: str, *flags: str) -> subprocess.CompletedProcess[str]:
    own = (f"--model=mine:{model}", f"--dataset={data}.npz", f"--runs-dir=runs-{model}", "--xla=off", "--workers=1")
    return downpour(folder, "train", *own, *flags)


def summary(folder: Path, model: str) -> dict[str, Any]:
    newest = max((folder / f"runs-{model}").glob("2*"))  # `latest` is the newest run that has trained
    found: dict[str, Any] = json.loads((newest / "summary.json").read_text())
    return found


@pytest.mark.parametrize(("model", "data"), [("logits", "classes"), ("numbers", "numbers")])
def test_a_run_is_evaluated_with_the_loss_that_its_model_is_compiled_with(folder: Path, model: str, data: str) -> None:
    assert train(folder, model, data, "--epochs=2", "--learning-rate=0.01").returncode == 0
    named = ["--model=mine:logits"] if model == "logits" else []
    done = downpour(folder, "evaluate", f"runs-{model}/latest", *named)
    assert json.loads(done.stdout)["loss"] == pytest.approx(summary(folder, model)["test_loss"], rel=1e-5)
    if named:
        unnamed = downpour(folder, "evaluate", f"runs-{model}/latest")
        assert unnamed.returncode == 1 and "--model module:function" in unnamed.stderr


def test_a_compiled_optimizer_is_the_jobs_or_refused_with_the_flags(folder: Path) -> None:
    refused = train(folder, "with_adam", "classes", "--epochs=1")
    assert refused.returncode == 1 and "--optimizer adam --learning-rate 0.001" in refused.stdout + refused.stderr
    assert summary(folder, "with_adam")["updates"] == 0
    done = train(folder, "with_adam", "classes", "--epochs=1", "--optimizer=adam", "--learning-rate=0.001")
    assert done.returncode == 0, done.stderr
    assert (summary(folder, "with_adam")["optimizer"], summary(folder, "with_adam")["updates"]) == ("adam", 6)


def test_pixels_of_a_model_that_scales_them_are_scaled_once(folder: Path) -> None:
    done = train(folder, "rescaling", "pixels", "--epochs=30", "--learning-rate=0.5")
    assert done.returncode == 0, done.stderr
    assert "uint8 samples are used unchanged (see --scale)" in done.stdout + done.stderr
    assert summary(folder, "rescaling")["test_accuracy"] > 0.9
    config = json.loads((folder / "runs-rescaling" / "latest" / "config.json").read_text())
    assert config["worker"]["scale"] == "1.0"
    found = json.loads(downpour(folder, "evaluate", "runs-rescaling/latest").stdout)
    assert found["loss"] == pytest.approx(summary(folder, "rescaling")["test_loss"], rel=1e-5)
    done = train(folder, "rescaling", "pixels", "--epochs=1", "--scale=1/255")
    assert "divided by 255" in done.stdout + done.stderr
    found = json.loads(downpour(folder, "evaluate", "runs-rescaling/latest").stdout)
    assert found["loss"] == pytest.approx(summary(folder, "rescaling")["test_loss"], rel=1e-5)
