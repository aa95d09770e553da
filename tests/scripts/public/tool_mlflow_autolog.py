"""MLflow's autologging of Keras (mlflow.org/docs/latest/ml/deep-learning/keras)."""

import keras
import mlflow
import numpy as np

from downpour import DistributedOptimizer

mlflow.set_tracking_uri("sqlite:///mlruns.db")
experiment = mlflow.set_experiment("autolog")
mlflow.keras.autolog(log_datasets=False, log_models=False)

weights = np.random.normal(size=(8, 1)).astype("float32")
x = np.random.normal(size=(400, 8)).astype("float32")
y = x @ weights + 0.1 * np.random.normal(size=(400, 1)).astype("float32")
x_train, y_train, x_test, y_test = x[:320], y[:320], x[320:], y[320:]


def build_model(learning_rate):
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(1)])
    optimizer = keras.optimizers.Adam(learning_rate)
    model.compile(optimizer=DistributedOptimizer(optimizer), loss="mse", metrics=["mae"])
    return model


histories = {}
for learning_rate in (0.001, 0.03):
    with mlflow.start_run(run_name=f"rate-{learning_rate}") as run:
        model = build_model(learning_rate)
        history = model.fit(x_train, y_train, batch_size=32, epochs=3, validation_data=(x_test, y_test), verbose=0)
        mlflow.log_param("rate", learning_rate)
        mlflow.log_metric("test_loss", model.evaluate(x_test, y_test, verbose=0)[0])
    histories[run.info.run_id] = history.history

# Without a run of the script, autologging begins one for each call of fit; this one's model is logged as well.
mlflow.keras.autolog(log_datasets=False)
history = model.fit(x_train, y_train, batch_size=32, epochs=2, validation_data=(x_test, y_test), verbose=0)
last = mlflow.last_active_run().info.run_id
histories[last] = history.history

client = mlflow.MlflowClient()
runs = client.search_runs([experiment.experiment_id])
assert {run.info.run_id for run in runs} == set(histories) and len(runs) == 3, runs
assert all(run.info.status == "FINISHED" and run.data.params["batch_size"] == "32" for run in runs), runs
for run_id, history in histories.items():
    for name in ("loss", "mae", "val_loss", "val_mae"):
        logged = client.get_metric_history(run_id, name)
        assert [metric.step for metric in logged] == list(range(len(history[name]))), (name, logged)
        assert np.allclose([metric.value for metric in logged], history[name]), (name, logged, history)
loaded = mlflow.keras.load_model(f"runs:/{last}/model")
assert np.allclose(loaded.evaluate(x_test, y_test, verbose=0)[0], histories[last]["val_loss"][-1], rtol=1e-4)
print("RESULT validation losses", *[history["val_loss"][-1] for history in histories.values()])
