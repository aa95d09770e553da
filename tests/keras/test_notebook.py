"""`LocalCluster` from an interactive process that has TensorFlow loaded, as a notebook's kernel has."""

from __future__ import annotations

import json
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest

from downpour import FitFailed, LocalCluster
from downpour.deploy.scripts.local_cluster import _check_parts
from downpour.deploy.scripts.notebook_screen import NotebookScreen, redrawn
from downpour.deploy.scripts.script_launcher import error_text
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.array_tree import flatten, restore
from tests.support.scripts import environment

SESSION = """
import json, keras, numpy as np
from downpour import LocalCluster
keras.utils.set_random_seed(1)
x = np.random.default_rng(0).normal(size=(320, 6)).astype("float32")
y = (x[:, 0] > 0).astype("int32")
model = keras.Sequential([keras.layers.Dense(8, activation="relu"), keras.layers.Dense(2, activation="softmax")])
model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy", metrics=["accuracy"])
cluster = LocalCluster(workers=2, runs_dir="runs")
first = cluster.fit(model, x, y, epochs=3, batch_size=16, validation_split=0.1, class_weight={0: 1.0, 1: 2.0})
iterations = int(model.optimizer.iterations)
moments = max(float(abs(m.numpy()).max()) for m in model.optimizer._momentums)
print("IN PLAIN KERAS", model.evaluate(x, y, verbose=0, return_dict=True)["accuracy"])
history = model.fit(x, y, epochs=1, verbose=0)
model.compile(keras.optimizers.Lamb(), "sparse_categorical_crossentropy")
try:
    cluster.fit(model, x, y)
except Exception as error:
    refused = f"{type(error).__name__}: {error}"

found = {"history": first.history, "epoch": first.epoch, "run": first.run, "refused": refused}
found |= {"iterations": iterations, "moments": moments, "staleness": first.staleness}
json.dump(found, open("found.json", "w"))
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_interactive_process_trains_on_a_cluster_then_in_plain_keras(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-i", "-q"], input=SESSION, env=environment(), cwd=tmp_path, capture_output=True, text=True,
        timeout=280,
    )  # fmt: skip
    assert (tmp_path / "found.json").exists(), done.stdout[-2000:] + done.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["epoch"] == [0, 1, 2] and len(found["history"]["val_accuracy"]) == 3
    assert found["history"]["loss"][2] < found["history"]["loss"][0]
    assert done.stdout.count("Epoch 2/3") == 1  # worker 0's output alone, and through this process's own stdout
    assert float(done.stdout.split("IN PLAIN KERAS ")[1].split()[0]) > 0.8
    assert found["refused"].startswith("FitFailed") and "SGD, Adagrad, RMSprop, Adam, AdamW" in found["refused"]
    assert found["iterations"] == 3 * 18 and found["moments"] > 0  # 288 samples for 2 workers
    summary = json.loads((tmp_path / found["run"] / "summary.json").read_text())
    assert summary["workers"] == 2 and summary["updates"] > 0
    assert found["staleness"] == {name: summary["staleness"][name] for name in ("mean", "p99", "max")}


CALLBACKS = """
import json, keras, numpy as np
from downpour import LocalCluster
keras.utils.set_random_seed(1)
x = np.arange(64, dtype="int32")[:, None]
y = np.zeros((64, 1), "float32")
layers = [keras.layers.Input((1,), dtype="int32"), keras.layers.Embedding(64, 1), keras.layers.Flatten()]
model = keras.Sequential(layers)
model.compile(keras.optimizers.SGD(0.1), "mse")

class Own(keras.callbacks.Callback):
    calls, weights = [], []
    def on_train_begin(self, logs=None): self.calls.append("begin")
    def on_epoch_begin(self, epoch, logs=None): self.calls.append(("epoch", epoch))
    def on_epoch_end(self, epoch, logs=None):
        self.calls.append((sorted(logs), round(float(self.model.optimizer.learning_rate), 4)))
        if epoch == 1:
            self.model.set_weights([np.full((64, 1), 5.0)])
        self.weights.append(float(self.model.get_weights()[0].mean()))
        if epoch == 3:
            self.model.stop_training = True
    def on_train_end(self, logs=None): self.calls.append("end")

own = Own()
history = LocalCluster(workers=2, runs_dir="runs").fit(
    model, x, y, epochs=9, batch_size=8,
    callbacks=[own, keras.callbacks.LearningRateScheduler(lambda epoch: 0.01 * (epoch + 1)),
               keras.callbacks.CSVLogger("log.csv"),
               keras.callbacks.ModelCheckpoint("{epoch}.weights.h5", save_weights_only=True)],
)
found = {"calls": own.calls, "weights": own.weights, "history": history.history, "epoch": history.epoch}
json.dump(found, open("found.json", "w"))
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_callbacks_run_in_the_program_and_what_they_set_reaches_the_workers(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CALLBACKS], env=environment(), cwd=tmp_path, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["epoch"] == [0, 1, 2, 3]
    assert found["calls"][0] == "begin" and found["calls"][-1] == "end"
    epochs = [[["epoch", epoch], [["loss"], round(0.01 * (epoch + 1), 4)]] for epoch in range(4)]
    assert found["calls"][1:-1] == [call for pair in epochs for call in pair]
    assert found["history"]["learning_rate"] == pytest.approx([0.01, 0.02, 0.03, 0.04])
    assert abs(found["weights"][0]) < 1 and found["weights"][1] == 5.0 and 3.0 < found["weights"][2] < 5.0
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 5
    assert sorted(path.name for path in tmp_path.glob("*.h5")) == [f"{epoch}.weights.h5" for epoch in (1, 2, 3, 4)]


class PerBatch:
    def set_model(self, model: object) -> None: ...

    def set_params(self, params: object) -> None: ...

    def on_epoch_end(self, epoch: int, logs: object = None) -> None: ...

    def on_train_batch_end(self, batch: int, logs: object = None) -> None: ...


class Compiled:
    optimizer = "any"


def test_a_model_or_argument_that_cannot_be_sent_is_refused_at_once(tmp_path: Path) -> None:
    cluster = LocalCluster(runs_dir=str(tmp_path / "runs"))
    with pytest.raises(TypeError, match="callbacks must be those of Keras. Received: object"):
        cluster.fit(Compiled(), np.zeros((4, 2)), callbacks=[object()])
    with pytest.raises(TypeError, match="PerBatch with on_train_batch_end. Write a script"):
        cluster.fit(Compiled(), np.zeros((4, 2)), callbacks=[PerBatch()])
    with pytest.raises(TypeError, match="compiled with an optimizer"):
        cluster.fit(object(), np.zeros((4, 2)))
    with pytest.raises(TypeError, match="array of numbers or texts.*object"):
        cluster.fit(Compiled(), np.array([object()]))
    with pytest.raises(TypeError, match=r"array of numbers or texts.*shape \(\)"):
        cluster.fit(Compiled(), np.zeros((4, 2)), [0, 1, 0, 1])
    with pytest.raises(TypeError, match="must be numbers or strings. Received: PosixPath"):
        cluster.fit(Compiled(), np.zeros((4, 2)), steps_per_epoch=tmp_path)
    with pytest.raises(TypeError, match=r"same number of samples. Received: x has 4, y has 3"):
        cluster.fit(Compiled(), np.zeros((4, 2)), np.zeros(3))
    with pytest.raises(TypeError, match=r"Received: x\['a'\] has 4, x\['b'\]\[0\] has 5"):
        cluster.fit(Compiled(), {"a": np.zeros((4, 2)), "b": [np.zeros((5, 1))]})
    with pytest.raises(ValueError, match="a cluster has .*workers, .*Received: worker"):
        LocalCluster(worker=3)
    assert issubclass(FitFailed, RuntimeError)
    assert not (tmp_path / "runs").exists()


def test_a_class_defined_in_the_session_is_refused_with_an_alternative(tmp_path: Path) -> None:
    def loss(y: object, outputs: object) -> object: ...

    class Mine: ...

    for own in (loss, Mine):
        own.__module__ = "__main__"

    class Model(Compiled):
        def __init__(self, loss: object, *layers: object) -> None:
            self.loss, self._layers = loss, layers

        def _flatten_layers(self) -> list[object]:
            return [self, *self._layers]

    cluster = LocalCluster(runs_dir=str(tmp_path / "runs"))
    for model in (Model("mse", Mine()), Model(loss), Model({"a": "mse", "b": loss}), Model([Mine()])):
        with pytest.raises(TypeError, match=r"(Mine|loss), defined in this session.*modules="):
            cluster.fit(model, np.zeros((4, 2)))
    assert not (tmp_path / "runs").exists()


def test_a_folder_for_runs_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cluster = LocalCluster(runs_dir=str(tmp_path / "file"))
    with pytest.raises(FitFailed, match=r"runs_dir must be a writable folder. Received: .*file"):
        cluster._launch(tmp_path, None)  # type: ignore[arg-type]


def test_nests_of_arrays_come_back_as_they_were() -> None:
    arrays: dict[str, np.ndarray] = {}
    given = {"a": np.arange(3), "b": [np.ones((2, 2)), {"c": np.array(["x", "yz"])}]}
    names = json.loads(json.dumps(flatten("x", given, arrays)))
    assert not any(array.dtype.hasobject for array in arrays.values())
    back = restore(names, arrays)
    np.testing.assert_array_equal(back["a"], given["a"])
    assert isinstance(back["b"], tuple)
    np.testing.assert_array_equal(back["b"][1]["c"], ["x", "yz"])


PARTS = [
    {"config": {"layers": [{"module": None, "class_name": "Mine", "registered_name": "Mine", "config": {}}]}},
    {"config": {"activation": {"module": "builtins", "class_name": "function", "config": "mine"}}},
    {"compile_config": {"metrics": [{"module": "builtins", "class_name": "function", "config": "mine"}]}},
    {"config": {"function": {"class_name": "__lambda__", "config": {"code": "4wEAAA"}}}},
]


@pytest.mark.parametrize("config", PARTS)
def test_every_part_of_a_model_that_the_session_defines_is_refused(
    config: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mine() -> None: ...

    class Mine: ...

    for own in (mine, Mine):
        own.__module__ = "__main__"
        monkeypatch.setitem(vars(sys.modules["__main__"]), own.__name__, own)
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as file:
        file.writestr("config.json", json.dumps(config))
    with pytest.raises(TypeError, match="(Mine|mine|a lambda), defined in this session.*modules="):
        _check_parts(tmp_path / "model.keras")
    for own in (mine, Mine):
        own.__module__ = "imported"  # into the session
    if "__lambda__" not in json.dumps(config):
        _check_parts(tmp_path / "model.keras")


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["Epoch 1", "Traceback (most recent call last):", '  File "x"', "    f()", "ValueError: a", "'y' sizes: 5."],
         "ValueError: a\n'y' sizes: 5."),
        (["downpour: refused", "because of this"], "downpour: refused\nbecause of this"),
        (["only a line"], "only a line"),
        ([], ""),
    ],
)  # fmt: skip
def test_the_whole_text_of_an_error_is_kept(lines: list[str], text: str) -> None:
    assert error_text(lines) == text


def test_a_notebook_shows_one_line_that_is_redrawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    class Handle:
        def update(self, content: dict[str, str], raw: bool) -> None:
            shown.append(content["text/plain"])

    def display(content: dict[str, str], raw: bool, display_id: bool) -> Handle:
        shown.append("first " + content["text/plain"])
        return Handle()

    kernel = types.SimpleNamespace(get_ipython=lambda: types.SimpleNamespace(kernel=object()))
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=display))
    screen = NotebookScreen(tmp_path / "log")
    for samples in (10, 20):
        screen.show(
            pb.Progress(phase="training", epochs=2, samples=samples, total_samples=40, loss=0.5, dataset="script")
        )
    screen.close()
    assert len(shown) == 3 and shown[0].startswith("first ━") and "50%" in shown[-1] and "loss 0.5000" in shown[-1]
    screen.show(pb.Progress(phase="waiting", workers_wanted=2, elapsed_s=7.0))
    assert shown[-1].strip() == "waiting for workers: 0 of 2 joined  0:07", "the time of a wait is shown once"
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: None))
    assert redrawn() is None
