"""Sequences of words, of which some words decide: a bidirectional LSTM, then attention; one line of each is ours."""

import keras
import numpy as np
from keras import layers, ops

from downpour import DistributedOptimizer

WORDS, LENGTH = 500, 30
rng = np.random.default_rng(0)
texts = [rng.integers(1, WORDS, rng.integers(10, LENGTH)).tolist() for _ in range(2400)]
labels = np.array([sum(word < 100 for word in text) > 0.2 * len(text) for text in texts]).astype("int64")
x = keras.utils.pad_sequences(texts, maxlen=LENGTH)
x_train, y_train, x_val, y_val = x[:2000], labels[:2000], x[2000:], labels[2000:]


class Positions(layers.Layer):
    """Adds what is learned of each word to what is learned of its place."""

    def __init__(self, width):
        super().__init__()
        self.words, self.places = layers.Embedding(WORDS, width), layers.Embedding(LENGTH, width)

    def call(self, tokens):
        return self.words(tokens) + self.places(ops.arange(LENGTH))


class Block(layers.Layer):
    """Attention and two dense layers, each with a shortcut."""

    def __init__(self, width, heads):
        super().__init__()
        self.attention = layers.MultiHeadAttention(heads, width)
        self.dense = keras.Sequential([layers.Dense(2 * width, activation="gelu"), layers.Dense(width)])
        self.norms = [layers.LayerNormalization() for _ in range(2)]
        self.dropout = layers.Dropout(0.1)

    def call(self, inputs, training=None):
        inner = self.norms[0](inputs + self.dropout(self.attention(inputs, inputs), training=training))
        return self.norms[1](inner + self.dropout(self.dense(inner), training=training))


tokens = keras.Input((None,), dtype="int32")
hidden = layers.Embedding(WORDS, 16, mask_zero=True)(tokens)
hidden = layers.Bidirectional(layers.LSTM(8, return_sequences=True))(hidden)
hidden = layers.Bidirectional(layers.LSTM(8))(hidden)
recurrent = keras.Model(tokens, layers.Dense(1, activation="sigmoid")(hidden))
recurrent.compile(optimizer=DistributedOptimizer("adam"), loss="binary_crossentropy", metrics=["accuracy"])
history = recurrent.fit(x_train, y_train, batch_size=32, epochs=4, validation_data=(x_val, y_val), verbose=2)
print("ACCURACY", max(history.history["val_accuracy"]))

tokens = keras.Input((LENGTH,), dtype="int32")
hidden = Block(16, 2)(Positions(16)(tokens))
hidden = layers.Dropout(0.1)(layers.GlobalAveragePooling1D()(hidden))
attentive = keras.Model(tokens, layers.Dense(2, activation="softmax")(hidden))
adam = keras.optimizers.Adam(0.003)
attentive.compile(optimizer=DistributedOptimizer(adam), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
history = attentive.fit(x_train, y_train, batch_size=32, epochs=4, validation_data=(x_val, y_val), verbose=2)
print("ACCURACY", max(history.history["val_accuracy"]))
