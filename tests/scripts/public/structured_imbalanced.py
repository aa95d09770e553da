"""Imbalanced classification: credit card fraud (keras.io/examples/structured_data/imbalanced_classification)."""

import keras
import numpy as np

from downpour import DistributedOptimizer

rng = np.random.default_rng(0)
with open("creditcard.csv", "w") as file:
    print("Time," + ",".join(f"V{k}" for k in range(1, 8)) + ",Class", file=file)
    for time in range(600):
        fraud = rng.random() < 0.1
        features = rng.normal(2.0 * fraud, 1.0, 7)
        print(f'{time},{",".join(f"{v:.4f}" for v in features)},"{int(fraud)}"', file=file)

fname = "creditcard.csv"
all_features = []
all_targets = []
with open(fname) as f:
    for i, line in enumerate(f):
        if i == 0:
            print("HEADER:", line.strip())
            continue
        fields = line.strip().split(",")
        all_features.append([float(v.replace('"', "")) for v in fields[:-1]])
        all_targets.append([int(fields[-1].replace('"', ""))])
features = np.array(all_features, dtype="float32")
targets = np.array(all_targets, dtype="uint8")

num_val_samples = int(len(features) * 0.2)
train_features, train_targets = features[:-num_val_samples], targets[:-num_val_samples]
val_features, val_targets = features[-num_val_samples:], targets[-num_val_samples:]
counts = np.bincount(train_targets[:, 0])
weight_for_0 = 1.0 / counts[0]
weight_for_1 = 1.0 / counts[1]

mean = np.mean(train_features, axis=0)
train_features -= mean
val_features -= mean
std = np.std(train_features, axis=0)
train_features /= std
val_features /= std

model = keras.Sequential(
    [
        keras.Input(shape=train_features.shape[1:]),
        keras.layers.Dense(32, activation="relu"),
        keras.layers.Dense(32, activation="relu"),
        keras.layers.Dropout(0.3),
        keras.layers.Dense(1, activation="sigmoid"),
    ]
)
metrics = [
    keras.metrics.FalseNegatives(name="fn"),
    keras.metrics.FalsePositives(name="fp"),
    keras.metrics.TrueNegatives(name="tn"),
    keras.metrics.TruePositives(name="tp"),
    keras.metrics.Precision(name="precision"),
    keras.metrics.Recall(name="recall"),
]
model.compile(optimizer=DistributedOptimizer(keras.optimizers.Adam(1e-2)), loss="binary_crossentropy", metrics=metrics)
callbacks = [keras.callbacks.ModelCheckpoint("fraud_model_at_epoch_{epoch}.keras")]
class_weight = {0: weight_for_0, 1: weight_for_1}
history = model.fit(
    train_features, train_targets, batch_size=64, epochs=4, verbose=2, callbacks=callbacks,
    validation_data=(val_features, val_targets), class_weight=class_weight,
)  # fmt: skip
for epoch in range(4):
    assert sum(history.history[name][epoch] for name in ("fn", "fp", "tn", "tp")) == len(train_features)
assert history.history["val_recall"][-1] > 0.5
print("RESULT validation recall", history.history["val_recall"][-1])
