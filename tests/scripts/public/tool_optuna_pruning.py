"""Optuna with pruning of trials (optuna-examples: keras/keras_integration, tfkeras_simple)."""

import keras
import numpy as np
import optuna

from downpour import DistributedOptimizer

centres = np.random.normal(size=(3, 8))
labels = np.random.randint(0, 3, 320)
x = (centres[labels] + 0.5 * np.random.normal(size=(320, 8))).astype("float32")
x_train, y_train, x_valid, y_valid = x[:240], labels[:240], x[240:], labels[240:]


class PruningCallback(keras.callbacks.Callback):
    def __init__(self, trial, monitor):
        super().__init__()
        self._trial = trial
        self._monitor = monitor

    def on_epoch_end(self, epoch, logs=None):
        self._trial.report(float(logs[self._monitor]), step=epoch)
        if self._trial.should_prune():
            raise optuna.TrialPruned(f"Trial was pruned at epoch {epoch}.")


def objective(trial):
    keras.backend.clear_session()
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(trial.suggest_int("units", 4, 16), activation="relu"),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    learning_rate = trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True)
    model.compile(
        loss="sparse_categorical_crossentropy",
        optimizer=DistributedOptimizer(keras.optimizers.RMSprop(learning_rate=learning_rate)),
        metrics=["accuracy"],
    )
    model.fit(
        x_train, y_train, validation_data=(x_valid, y_valid), shuffle=True, batch_size=32, epochs=3, verbose=0,
        callbacks=[PruningCallback(trial, "val_accuracy")],
    )  # fmt: skip
    return model.evaluate(x_valid, y_valid, verbose=0)[1]


study = optuna.create_study(
    direction="maximize", sampler=optuna.samplers.TPESampler(seed=1),
    pruner=optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=0),
)  # fmt: skip
study.optimize(objective, n_trials=6)
states = [trial.state.name for trial in study.trials]
assert len(states) == 6 and set(states) <= {"COMPLETE", "PRUNED"}, states
print("RESULT best", study.best_value, states)
