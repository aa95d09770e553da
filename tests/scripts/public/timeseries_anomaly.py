"""Timeseries anomaly detection using an autoencoder (keras.io/examples/timeseries/timeseries_anomaly_detection)."""

import keras
import numpy as np
from keras import layers

from downpour import DistributedOptimizer

time = np.arange(700)
training_value = np.sin(time / 10) + 0.05 * np.random.randn(700)
test_values = np.sin(time / 10) + 0.05 * np.random.randn(700)
test_values[300:330] += 3.0
training_mean = training_value.mean()
training_std = training_value.std()
df_training_value = ((training_value - training_mean) / training_std)[:, None]

TIME_STEPS = 32


def create_sequences(values, time_steps=TIME_STEPS):
    output = []
    for i in range(len(values) - time_steps + 1):
        output.append(values[i : (i + time_steps)])
    return np.stack(output)


x_train = create_sequences(df_training_value)
model = keras.Sequential(
    [
        layers.Input(shape=(x_train.shape[1], x_train.shape[2])),
        layers.Conv1D(filters=16, kernel_size=7, padding="same", strides=2, activation="relu"),
        layers.Dropout(rate=0.2),
        layers.Conv1D(filters=8, kernel_size=7, padding="same", strides=2, activation="relu"),
        layers.Conv1DTranspose(filters=8, kernel_size=7, padding="same", strides=2, activation="relu"),
        layers.Dropout(rate=0.2),
        layers.Conv1DTranspose(filters=16, kernel_size=7, padding="same", strides=2, activation="relu"),
        layers.Conv1DTranspose(filters=1, kernel_size=7, padding="same"),
    ]
)
model.compile(optimizer=DistributedOptimizer(keras.optimizers.Adam(learning_rate=0.003)), loss="mse")
history = model.fit(
    x_train, x_train, epochs=4, batch_size=32, validation_split=0.1,
    callbacks=[keras.callbacks.EarlyStopping(monitor="val_loss", patience=5, mode="min")],
)  # fmt: skip
x_train_pred = model.predict(x_train, verbose=0)
train_mae_loss = np.mean(np.abs(x_train_pred - x_train), axis=1)
threshold = np.max(train_mae_loss)
x_test = create_sequences(((test_values - training_mean) / training_std)[:, None])
test_mae_loss = np.mean(np.abs(model.predict(x_test, verbose=0) - x_test), axis=1).reshape(-1)
anomalies = test_mae_loss > threshold
print("Number of anomaly samples: ", np.sum(anomalies))
assert anomalies.sum() > 0
print("RESULT anomalies", int(anomalies.sum()), history.history["val_loss"][-1])
