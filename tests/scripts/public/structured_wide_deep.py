"""Structured data learning with wide, deep and cross networks (keras.io/examples/structured_data/wide_deep_cross_networks)."""

import csv
import math

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from downpour import DistributedOptimizer

rng = np.random.default_rng(0)
TARGET_FEATURE_NAME = "Cover_Type"
TARGET_FEATURE_LABELS = ["0", "1", "2"]
NUMERIC_FEATURE_NAMES = ["Elevation", "Slope", "Distance"]
CATEGORICAL_FEATURES_WITH_VOCABULARY = {"Soil_Type": ["a", "b", "c", "d"], "Wilderness_Area": ["x", "y"]}
CATEGORICAL_FEATURE_NAMES = list(CATEGORICAL_FEATURES_WITH_VOCABULARY.keys())
FEATURE_NAMES = NUMERIC_FEATURE_NAMES + CATEGORICAL_FEATURE_NAMES
CSV_HEADER = FEATURE_NAMES + [TARGET_FEATURE_NAME]
COLUMN_DEFAULTS = [[0.0] if name in NUMERIC_FEATURE_NAMES else ["NA"] for name in FEATURE_NAMES] + [[0]]

for path, count in (("train_data.csv", 400), ("test_data.csv", 80)):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(CSV_HEADER)
        for _ in range(count):
            numbers = rng.normal(size=3)
            soil, area = rng.choice(list("abcd")), rng.choice(["x", "y"])
            label = int(numbers[0] > 0) + int(soil in "ab" and area == "x")
            writer.writerow([*numbers.round(3), soil, area, label])


def get_dataset_from_csv(csv_file_path, batch_size, shuffle=False):
    dataset = tf.data.experimental.make_csv_dataset(
        csv_file_path, batch_size=batch_size, column_names=CSV_HEADER, column_defaults=COLUMN_DEFAULTS,
        label_name=TARGET_FEATURE_NAME, num_epochs=1, header=True, shuffle=shuffle,
    )  # fmt: skip
    return dataset.cache()


learning_rate = 0.01
dropout_rate = 0.1
batch_size = 25
num_epochs = 4
hidden_units = [16, 16]


def create_model_inputs():
    inputs = {}
    for feature_name in FEATURE_NAMES:
        if feature_name in NUMERIC_FEATURE_NAMES:
            inputs[feature_name] = layers.Input(name=feature_name, shape=(), dtype="float32")
        else:
            inputs[feature_name] = layers.Input(name=feature_name, shape=(), dtype="string")
    return inputs


def encode_inputs(inputs, use_embedding=False):
    encoded_features = []
    for feature_name in inputs:
        if feature_name in CATEGORICAL_FEATURE_NAMES:
            vocabulary = CATEGORICAL_FEATURES_WITH_VOCABULARY[feature_name]
            lookup = layers.StringLookup(
                vocabulary=vocabulary, mask_token=None, num_oov_indices=0,
                output_mode="int" if use_embedding else "one_hot",
            )  # fmt: skip
            if use_embedding:
                encoded_feature = lookup(inputs[feature_name])
                embedding = layers.Embedding(input_dim=len(vocabulary), output_dim=int(math.sqrt(len(vocabulary))))
                encoded_feature = embedding(encoded_feature)
            else:
                encoded_feature = lookup(keras.ops.expand_dims(inputs[feature_name], -1))
        else:
            encoded_feature = keras.ops.expand_dims(inputs[feature_name], -1)
        encoded_features.append(encoded_feature)
    return layers.concatenate(encoded_features)


def create_wide_and_deep_model():
    inputs = create_model_inputs()
    wide = encode_inputs(inputs)
    wide = layers.BatchNormalization()(wide)
    deep = encode_inputs(inputs, use_embedding=True)
    for units in hidden_units:
        deep = layers.Dense(units)(deep)
        deep = layers.BatchNormalization()(deep)
        deep = layers.ReLU()(deep)
        deep = layers.Dropout(dropout_rate)(deep)
    merged = layers.concatenate([wide, deep])
    outputs = layers.Dense(units=len(TARGET_FEATURE_LABELS), activation="softmax")(merged)
    return keras.Model(inputs=inputs, outputs=outputs)


def run_experiment(model):
    model.compile(
        optimizer=DistributedOptimizer(keras.optimizers.Adam(learning_rate=learning_rate)),
        loss=keras.losses.SparseCategoricalCrossentropy(),
        metrics=[keras.metrics.SparseCategoricalAccuracy()],
    )
    train_dataset = get_dataset_from_csv("train_data.csv", batch_size, shuffle=True)
    test_dataset = get_dataset_from_csv("test_data.csv", batch_size)
    model.fit(train_dataset, epochs=num_epochs)
    _, accuracy = model.evaluate(test_dataset, verbose=0)
    print(f"Test accuracy: {round(accuracy * 100, 2)}%")
    return accuracy


accuracy = run_experiment(create_wide_and_deep_model())
assert accuracy > 0.45, accuracy
print("RESULT test accuracy", accuracy)
