"""Real runs of `downpour train`, done again by `downpour replay`: identical bits, or a word on why not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from downpour.ps.storage.checkpoint_file import STATE, TRAINED, Checkpoint, load, numbers, path_of
from downpour.worker.compute.flat_model import read_weights
from tests.support.cluster import running, wait_until
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow
MODELS = '''
import keras
import tensorflow as tf
from keras import Input, Sequential, layers


class Noise(layers.Layer):
    """Random numbers that come from the process, not from a seed of the model."""

    def call(self, x):
        return x + 1e-6 * tf.random.normal(tf.shape(x))


class Counter(layers.Layer):
    """Counts its calls in a whole number."""

    def build(self, shape):
        self.calls = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False, name="calls")

    def call(self, x):
        self.calls.assign(self.calls + 1)
        return x * 1.0


def with_layer(layer, input_shape, classes):
    hidden = [layers.Flatten(), layers.Dense(16, activation="relu"), layer, layers.Dense(classes, activation="softmax")]
    return Sequential([Input(input_shape), *hidden])


def dropout(input_shape, classes):
    """State that gradients do not train, and random numbers."""
    head = [layers.BatchNormalization(), layers.Dropout(0.3), layers.Dense(classes, activation="softmax")]
    return Sequential([Input(input_shape), layers.Flatten(), layers.Dense(16, activation="relu"), *head])


def noise(input_shape, classes):
    return with_layer(Noise(), input_shape, classes)


def counter(input_shape, classes):
    return with_layer(Counter(), input_shape, classes)
'''


def downpour(folder: Path, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs a command in a folder, which has to end with a status."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", "downpour.deploy.cli", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == status, f"{done.stdout}\n{done.stderr}"
    return done


def prepare(folder: Path) -> None:
    """Puts data and models into a folder."""
    random = np.random.default_rng(7)
    arrays = {"x_train": (1000, 6, 6), "x_test": (50, 6, 6)}
    data: dict[str, Any] = {name: random.integers(0, 256, shape, np.uint8) for name, shape in arrays.items()}
    data |= {"y_train": random.integers(0, 5, 1000), "y_test": random.integers(0, 5, 50)}
    np.savez(folder / "data.npz", **data)
    (folder / "small_models.py").write_text(MODELS)


def train(folder: Path, *flags: str) -> Path:
    """Trains one small job; returns its run directory."""
    prepare(folder)
    given = {flag.partition("=")[0] for flag in flags}
    common = ["--epochs=1", "--batch-size=8", "--workers=2", "--dataset=data.npz", "--model=small_models:dropout"]
    downpour(folder, "train", *flags, *(flag for flag in common if flag.partition("=")[0] not in given))
    return folder / "runs" / "latest"


def replayed(run: Path, *flags: str, status: int = 0) -> dict[str, Any]:
    done = downpour(run.parents[1], "replay", str(run), "--json", *flags, status=status)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    "flags",
    [
        ("--mode=async", "--shards=2", "--xla=on"),
        ("--mode=ssp:1", "--workers=3", "--optimizer=momentum", "--momentum-correction"),
        ("--mode=bsp", "--shards=2", "--optimizer=adam", "--clip-norm=1"),
        ("--mode=softsync:2", "--workers=3", "--staleness-policy=dc_asgd", "--transport=grpc"),
        ("--mode=async", "--push-every=4", "--overlap", "--shards=2"),
        ("--mode=localsgd:3", "--learning-rate=0.05"),
    ],
    ids=lambda flags: " ".join(flags[:2]),
)
def test_a_run_is_replayed_bit_by_bit(tmp_path: Path, flags: tuple[str, ...]) -> None:
    found = replayed(train(tmp_path, *flags))
    assert found["exact"] and found["differing_weights"] == 0 and not found["nondeterminism"]
    assert found["pushes"] >= 25


def early_checkpoints(run: Path) -> list[Checkpoint]:
    """Returns the checkpoints of a run before its last version."""
    last = int(np.load(run / "trace.npy")["version"].max())
    checkpoints = [load(path_of(run / "checkpoints", number)) for number in numbers(run / "checkpoints")]
    return [each for each in checkpoints if 0 < each.facts.shards[0].version < last]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints on its way; a busy disk may need longer for one than a short training takes."""
    for epochs in (6, 30, 150):
        run = train(
            tmp_path_factory.mktemp("job"), f"--epochs={epochs}", "--checkpoint-every=10", "--checkpoint-keep=1000"
        )
        if early_checkpoints(run):
            return run
    raise AssertionError("a checkpoint must have been taken on the way")


def test_a_replay_to_a_version_equals_the_checkpoint_of_this_version(run: Path) -> None:
    early = early_checkpoints(run)
    checkpoint = early[len(early) // 2]
    version = checkpoint.facts.shards[0].version
    found = replayed(run, f"--until={version}")
    assert found["exact"] and found["versions"] == [version] and found["differing_weights"] is None
    assert Path(found["saved"]).name == f"replay-{version}.keras"
    weights = read_weights(keras.models.load_model(run.parents[1] / found["saved"]))
    expected = np.concatenate((checkpoint.vectors[TRAINED], checkpoint.vectors[STATE]))
    assert weights.tobytes() == expected.tobytes()


def test_a_changed_record_is_detected(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run.resolve(), tmp_path / "job" / "copy")
    for name in ("data.npz", "small_models.py"):
        shutil.copy(run.parents[1] / name, tmp_path)
    trace = np.load(copy / "trace.npy")
    index = int(np.flatnonzero(trace["staleness"] > 0)[20])
    trace[index]["base_version"] += 1
    np.save(copy / "trace.npy", trace)
    found = replayed(copy, status=1)
    assert not found["exact"] and found["differing_outcomes"] >= 1 and found["differing_values"] >= 1
    assert found["differing_weights"] > 0
    assert f"from version {trace[index]['base_version']}" in found["first_difference"]


def test_other_data_or_another_model_is_refused(run: Path) -> None:
    folder = run.parents[1]
    with np.load(folder / "data.npz") as data:
        np.savez(folder / "other.npz", **{name: array[::-1] for name, array in data.items()})
    message = downpour(folder, "replay", str(run), "--dataset=other.npz", status=2).stderr
    assert "the data must be those of the run, with checksum" in message
    message = downpour(folder, "replay", str(run), "--model=small_models:noise", status=2).stderr
    assert "the model must be that of the run" in message


def test_random_numbers_of_the_process_are_detected_named_and_compared_within_a_tolerance(tmp_path: Path) -> None:
    found = replayed(train(tmp_path, "--model=small_models:noise"))
    assert found["passed"] and not found["exact"] and found["differing_outcomes"] == 0
    assert 0 < found["relative_difference"] < found["tolerance"] == 1e-3
    assert any("RandomStandardNormal" in reason for reason in found["nondeterminism"])


def test_integer_state_that_a_step_changes_is_refused(tmp_path: Path) -> None:
    run = train(tmp_path, "--model=small_models:counter")
    message = downpour(tmp_path, "replay", str(run), status=2).stderr
    assert "must not keep integer state; a step changes" in message and "calls" in message


def test_a_drained_job_with_a_killed_and_a_late_worker_is_replayed(tmp_path: Path) -> None:
    """Started by hand; drained before its many epochs are over."""
    prepare(tmp_path)
    env = {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    model, data = "small_models:dropout", str(tmp_path / "data.npz")
    flags = {"workers": 2, "epochs": 10_000, "batch_size": 8, "mode": "ssp:3", "optimizer": "momentum"}
    with running(tmp_path, 1, **flags, model=model, dataset=data) as cluster:
        command = ("-m", "downpour.worker", f"--server={cluster.address}", f"--model={model}", f"--dataset={data}")
        first, victim = (cluster.start(f"worker-{number}", *command, env=env) for number in range(2))
        wait_until(lambda: cluster.status().version > 50, "both train")
        victim.kill()
        late = cluster.start("worker-late", *command, env=env)
        wait_until(lambda: any(w.worker == 2 and w.updates > 50 for w in cluster.status().workers), "the late one too")
        cluster.servers[0].child.terminate()
        assert [process.wait() for process in (first, late, *cluster.servers)] == [0, 0, 0]
    found = json.loads(downpour(tmp_path, "replay", str(cluster.run), "--json").stdout)
    assert found["exact"] and found["differing_weights"] == 0
    trace = np.load(cluster.run / "trace.npy")
    assert {int(worker) for worker in trace["worker"]} == {0, 1, 2} and found["pushes"] == len(trace)
