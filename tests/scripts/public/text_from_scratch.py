"""Text classification from scratch (keras.io/examples/nlp/text_classification_from_scratch)."""

import os
import random
import re
import string

import keras
import tensorflow as tf
from keras import layers

from downpour import DistributedOptimizer

words = {"pos": ["great", "lovely", "fine", "superb"], "neg": ["bad", "awful", "dull", "poor"]}
for split, count in (("train", 96), ("test", 32)):
    for label in ("pos", "neg"):
        os.makedirs(f"aclImdb/{split}/{label}")
        for number in range(count):
            text = " ".join(random.choices(words[label] + ["the", "film", "was", "actor<br />"], k=12))
            with open(f"aclImdb/{split}/{label}/{number}.txt", "w") as file:
                file.write(text)

batch_size = 16
raw_train_ds = keras.utils.text_dataset_from_directory(
    "aclImdb/train", batch_size=batch_size, validation_split=0.2, subset="training", seed=1337
)
raw_val_ds = keras.utils.text_dataset_from_directory(
    "aclImdb/train", batch_size=batch_size, validation_split=0.2, subset="validation", seed=1337
)
raw_test_ds = keras.utils.text_dataset_from_directory("aclImdb/test", batch_size=batch_size)
print(f"Number of batches in raw_train_ds: {raw_train_ds.cardinality()}")


def custom_standardization(input_data):
    lowercase = tf.strings.lower(input_data)
    stripped_html = tf.strings.regex_replace(lowercase, "<br />", " ")
    return tf.strings.regex_replace(stripped_html, f"[{re.escape(string.punctuation)}]", "")


max_features = 200
embedding_dim = 16
sequence_length = 20
vectorize_layer = keras.layers.TextVectorization(
    standardize=custom_standardization, max_tokens=max_features, output_mode="int",
    output_sequence_length=sequence_length,
)  # fmt: skip
text_ds = raw_train_ds.map(lambda x, y: x)
vectorize_layer.adapt(text_ds)


def vectorize_text(text, label):
    text = tf.expand_dims(text, -1)
    return vectorize_layer(text), label


train_ds = raw_train_ds.map(vectorize_text).cache().prefetch(buffer_size=10)
val_ds = raw_val_ds.map(vectorize_text).cache().prefetch(buffer_size=10)
test_ds = raw_test_ds.map(vectorize_text).cache().prefetch(buffer_size=10)

inputs = keras.Input(shape=(None,), dtype="int64")
x = layers.Embedding(max_features, embedding_dim)(inputs)
x = layers.Dropout(0.5)(x)
x = layers.Conv1D(16, 7, padding="valid", activation="relu", strides=3)(x)
x = layers.Conv1D(16, 3, padding="same", activation="relu")(x)
x = layers.GlobalMaxPooling1D()(x)
x = layers.Dense(16, activation="relu")(x)
x = layers.Dropout(0.5)(x)
predictions = layers.Dense(1, activation="sigmoid", name="predictions")(x)
model = keras.Model(inputs, predictions)
model.compile(
    loss="binary_crossentropy", optimizer=DistributedOptimizer(keras.optimizers.Adam(0.005)), metrics=["accuracy"]
)
model.fit(train_ds, validation_data=val_ds, epochs=4)
loss, accuracy = model.evaluate(test_ds)

inputs = keras.Input(shape=(1,), dtype="string")
indices = vectorize_layer(inputs)
outputs = model(indices)
end_to_end_model = keras.Model(inputs, outputs)
end_to_end_model.compile(loss="binary_crossentropy", optimizer="adam", metrics=["accuracy"])
again = end_to_end_model.evaluate(raw_test_ds)
assert abs(again[1] - accuracy) < 1e-6 and accuracy > 0.7, (again, accuracy)
print("RESULT test accuracy", accuracy)
