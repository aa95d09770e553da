"""Timeseries classification with a Transformer model (keras.io/examples/timeseries/timeseries_classification_transformer)."""

import keras
import numpy as np
from keras import layers

from downpour import DistributedOptimizer

with open("FordA_TRAIN.tsv", "w") as file:
    for row in range(240):
        label = 1 if row % 2 else -1
        wave = np.sin(np.arange(40) / (2 if label == 1 else 4) + np.random.rand() * 6) + 0.2 * np.random.randn(40)
        print("\t".join(f"{v:.5f}" for v in (label, *wave)), file=file)


def readucr(filename):
    data = np.loadtxt(filename, delimiter="\t")
    y = data[:, 0]
    x = data[:, 1:]
    return x, y.astype(int)


x_train, y_train = readucr("FordA_TRAIN.tsv")
x_train = x_train.reshape((x_train.shape[0], x_train.shape[1], 1))
n_classes = len(np.unique(y_train))
idx = np.random.permutation(len(x_train))
x_train = x_train[idx]
y_train = y_train[idx]
y_train[y_train == -1] = 0


def transformer_encoder(inputs, head_size, num_heads, ff_dim, dropout=0):
    x = layers.MultiHeadAttention(key_dim=head_size, num_heads=num_heads, dropout=dropout)(inputs, inputs)
    x = layers.Dropout(dropout)(x)
    x = layers.LayerNormalization(epsilon=1e-6)(x)
    res = x + inputs
    x = layers.Conv1D(filters=ff_dim, kernel_size=1, activation="relu")(res)
    x = layers.Dropout(dropout)(x)
    x = layers.Conv1D(filters=inputs.shape[-1], kernel_size=1)(x)
    x = layers.LayerNormalization(epsilon=1e-6)(x)
    return x + res


def build_model(input_shape, head_size, num_heads, ff_dim, num_transformer_blocks, mlp_units, dropout=0, mlp_dropout=0):
    inputs = keras.Input(shape=input_shape)
    x = inputs
    for _ in range(num_transformer_blocks):
        x = transformer_encoder(x, head_size, num_heads, ff_dim, dropout)
    x = layers.GlobalAveragePooling1D(data_format="channels_last")(x)
    for dim in mlp_units:
        x = layers.Dense(dim, activation="relu")(x)
        x = layers.Dropout(mlp_dropout)(x)
    outputs = layers.Dense(n_classes, activation="softmax")(x)
    return keras.Model(inputs, outputs)


model = build_model(
    x_train.shape[1:], head_size=16, num_heads=2, ff_dim=4, num_transformer_blocks=2, mlp_units=[16], mlp_dropout=0.4,
    dropout=0.25,
)  # fmt: skip
model.compile(
    loss="sparse_categorical_crossentropy",
    optimizer=DistributedOptimizer(keras.optimizers.Adam(learning_rate=1e-3)),
    metrics=["sparse_categorical_accuracy"],
)
callbacks = [
    keras.callbacks.EarlyStopping(patience=10, restore_best_weights=True),
    keras.callbacks.ReduceLROnPlateau(monitor="loss", factor=0.5, patience=1, min_lr=1e-4),
]
history = model.fit(x_train, y_train, validation_split=0.2, epochs=4, batch_size=32, callbacks=callbacks)
assert "learning_rate" in history.history and len(history.history["loss"]) == 4
score = model.evaluate(x_train, y_train, verbose=0)
assert np.isfinite(score).all()
print("RESULT accuracy", score[1])
