"""Structured data classification with FeatureSpace (keras.io/examples/structured_data/structured_data_classification_with_feature_space)."""

import keras
import numpy as np
import tensorflow as tf
from keras.utils import FeatureSpace

from downpour import DistributedOptimizer

# The table of patients is replaced by a drawn one.
rng = np.random.default_rng(1337)
count = 300
table = {
    "sex": rng.integers(0, 2, count),
    "thal": rng.choice(["normal", "fixed", "reversible"], count),
    "age": rng.integers(29, 78, count),
    "chol": rng.normal(240, 50, count),
    "oldpeak": rng.random(count) * 4,
}
table["target"] = ((table["age"] > 55) ^ (table["thal"] == "normal")).astype("int64")
order = rng.permutation(count)
train_dataframe = {name: column[order[:240]] for name, column in table.items()}
val_dataframe = {name: column[order[240:]] for name, column in table.items()}


def dataframe_to_dataset(dataframe):
    dataframe = dataframe.copy()
    labels = dataframe.pop("target")
    ds = tf.data.Dataset.from_tensor_slices((dict(dataframe), labels))
    return ds.shuffle(buffer_size=len(labels))


train_ds = dataframe_to_dataset(train_dataframe).batch(32)
val_ds = dataframe_to_dataset(val_dataframe).batch(32)

feature_space = FeatureSpace(
    features={
        "sex": FeatureSpace.integer_categorical(num_oov_indices=0),
        "thal": FeatureSpace.string_categorical(num_oov_indices=0),
        "age": FeatureSpace.float_discretized(num_bins=10),
        "chol": FeatureSpace.float_normalized(),
        "oldpeak": FeatureSpace.float_normalized(),
    },
    crosses=[FeatureSpace.cross(feature_names=("thal", "age"), crossing_dim=16)],
    output_mode="concat",
)
train_ds_with_no_labels = train_ds.map(lambda x, _: x)
feature_space.adapt(train_ds_with_no_labels)
preprocessed_train_ds = train_ds.map(lambda x, y: (feature_space(x), y), num_parallel_calls=tf.data.AUTOTUNE)
preprocessed_train_ds = preprocessed_train_ds.prefetch(tf.data.AUTOTUNE)
preprocessed_val_ds = val_ds.map(lambda x, y: (feature_space(x), y), num_parallel_calls=tf.data.AUTOTUNE)
preprocessed_val_ds = preprocessed_val_ds.prefetch(tf.data.AUTOTUNE)

dict_inputs = feature_space.get_inputs()
encoded_features = feature_space.get_encoded_features()
x = keras.layers.Dense(32, activation="relu")(encoded_features)
x = keras.layers.Dropout(0.5)(x)
predictions = keras.layers.Dense(1, activation="sigmoid")(x)
training_model = keras.Model(inputs=encoded_features, outputs=predictions)
training_model.compile(
    optimizer=DistributedOptimizer(keras.optimizers.Adam(0.01)), loss="binary_crossentropy", metrics=["accuracy"]
)
inference_model = keras.Model(inputs=dict_inputs, outputs=predictions)
history = training_model.fit(preprocessed_train_ds, epochs=6, validation_data=preprocessed_val_ds, verbose=2)

sample = {"sex": 1, "thal": "fixed", "age": 60, "chol": 233.0, "oldpeak": 2.3}
input_dict = {name: keras.ops.convert_to_tensor([value]) for name, value in sample.items()}
predictions = inference_model.predict(input_dict)
print(f"This patient had a {100 * predictions[0][0]:.2f}% probability of having a heart disease")
assert history.history["val_accuracy"][-1] > 0.6
print("RESULT validation accuracy", history.history["val_accuracy"][-1])
