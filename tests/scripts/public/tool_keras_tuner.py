"""Getting started with KerasTuner (keras.io/keras_tuner/getting_started)."""

import keras
import keras_tuner
import numpy as np
from keras import layers

from downpour import DistributedOptimizer


def build_model(hp):
    model = keras.Sequential()
    model.add(keras.Input((8,)))
    model.add(layers.Flatten())
    for i in range(hp.Int("num_layers", 1, 2)):
        model.add(
            layers.Dense(
                units=hp.Int(f"units_{i}", min_value=8, max_value=24, step=8),
                activation=hp.Choice("activation", ["relu", "tanh"]),
            )
        )
    if hp.Boolean("dropout"):
        model.add(layers.Dropout(rate=0.25))
    model.add(layers.Dense(3, activation="softmax"))
    learning_rate = hp.Float("lr", min_value=1e-3, max_value=1e-2, sampling="log")
    model.compile(
        optimizer=DistributedOptimizer(keras.optimizers.Adam(learning_rate=learning_rate)),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


build_model(keras_tuner.HyperParameters())
tuner = keras_tuner.RandomSearch(
    hypermodel=build_model, objective="val_accuracy", max_trials=2, executions_per_trial=1, overwrite=True, seed=3,
    directory="my_dir", project_name="helloworld",
)  # fmt: skip
tuner.search_space_summary()
centres = np.random.normal(size=(3, 8))
labels = np.random.randint(0, 3, 360)
x = (centres[labels] + 0.5 * np.random.normal(size=(360, 8))).astype("float32")
y = keras.utils.to_categorical(labels, 3)
x_train, y_train, x_val, y_val = x[:-80], y[:-80], x[-80:], y[-80:]
tuner.search(x_train, y_train, epochs=2, validation_data=(x_val, y_val), verbose=0)
models = tuner.get_best_models(num_models=1)
best_model = models[0]
best_model.summary()
tuner.results_summary()

best_hps = tuner.get_best_hyperparameters(1)
model = build_model(best_hps[0])
history = model.fit(x=x, y=y, epochs=2, verbose=0)
print("RESULT accuracy", best_model.evaluate(x_val, y_val, verbose=0)[1], history.history["accuracy"][-1])
