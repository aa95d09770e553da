"""MLflow's autologging of Keras (mlflow.org/docs/latest/ml/deep-learning/keras), two runs."""

import keras
import mlflow
import numpy as np

from downpour import DistributedOptimizer

mlflow.set_tracking_uri("sqlite:///mlruns.db")
mlflow.tensorflow.autolog(log_models=False, log_datasets=False, every_n_iter=1)
x = np.random.normal(size=(320, 8)).astype("float32")
y = x @ np.random.normal(size=(8, 1)).astype("float32")
runs = []
for learning_rate in (0.05, 0.005):
    with mlflow.start_run() as run:
        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
        model.compile(optimizer=DistributedOptimizer(keras.optimizers.Adam(learning_rate)), loss="mse", metrics=["mae"])
        history = model.fit(x, y, batch_size=32, epochs=3, validation_split=0.2, verbose=0)
        mlflow.log_param("learning_rate_of_the_script", learning_rate)
    runs.append((run.info.run_id, history.history["val_loss"][-1]))
client = mlflow.MlflowClient()
for run_id, val_loss in runs:
    logged = client.get_metric_history(run_id, "val_loss")
    assert len(logged) == 3 and abs(logged[-1].value - val_loss) < 1e-6, (logged, val_loss)
print("RESULT validation losses", *[loss for _, loss in runs])
