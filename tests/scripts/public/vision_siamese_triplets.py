"""Image similarity with a Siamese network and a triplet loss (keras.io/examples/vision/siamese_network)."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, metrics, ops

from downpour import DistributedOptimizer

target_shape = (16, 16)
rng = np.random.RandomState(seed=42)
anchors = rng.uniform(size=(160, *target_shape, 3)).astype("float32")
positives = np.clip(anchors + 0.05 * rng.normal(size=anchors.shape), 0, 1).astype("float32")
negatives = anchors[rng.permutation(len(anchors))]

anchor_dataset = tf.data.Dataset.from_tensor_slices(anchors)
positive_dataset = tf.data.Dataset.from_tensor_slices(positives)
negative_dataset = tf.data.Dataset.from_tensor_slices(negatives).shuffle(buffer_size=4096, seed=1)
dataset = tf.data.Dataset.zip((anchor_dataset, positive_dataset, negative_dataset))
dataset = dataset.shuffle(buffer_size=1024, seed=2, reshuffle_each_iteration=False)
train_dataset = dataset.take(round(len(anchors) * 0.8)).batch(8, drop_remainder=False).prefetch(tf.data.AUTOTUNE)
val_dataset = dataset.skip(round(len(anchors) * 0.8)).batch(8, drop_remainder=False).prefetch(tf.data.AUTOTUNE)

base_inputs = keras.Input(target_shape + (3,))
features = layers.Conv2D(8, 3, activation="relu")(base_inputs)
features = layers.Conv2D(8, 3, activation="relu", name="conv5_block1_out")(features)
base_cnn = keras.Model(base_inputs, layers.MaxPooling2D()(features))
flatten = layers.Flatten()(base_cnn.output)
dense1 = layers.Dense(32, activation="relu")(flatten)
dense1 = layers.BatchNormalization()(dense1)
output = layers.Dense(16)(dense1)
embedding = keras.Model(base_cnn.input, output, name="Embedding")

trainable = False
for layer in base_cnn.layers:
    if layer.name == "conv5_block1_out":
        trainable = True
    layer.trainable = trainable


class DistanceLayer(layers.Layer):
    def call(self, anchor, positive, negative):
        ap_distance = ops.sum(ops.square(anchor - positive), -1)
        an_distance = ops.sum(ops.square(anchor - negative), -1)
        return (ap_distance, an_distance)


anchor_input = layers.Input(name="anchor", shape=target_shape + (3,))
positive_input = layers.Input(name="positive", shape=target_shape + (3,))
negative_input = layers.Input(name="negative", shape=target_shape + (3,))
distances = DistanceLayer()(embedding(anchor_input), embedding(positive_input), embedding(negative_input))
siamese_network = keras.Model(inputs=[anchor_input, positive_input, negative_input], outputs=distances)


class SiameseModel(keras.Model):
    def __init__(self, siamese_network, margin=0.5):
        super().__init__()
        self.siamese_network = siamese_network
        self.margin = margin
        self.loss_tracker = metrics.Mean(name="loss")

    def call(self, inputs):
        return self.siamese_network(inputs)

    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss = self._compute_loss(data)
        gradients = tape.gradient(loss, self.siamese_network.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.siamese_network.trainable_weights))
        self.loss_tracker.update_state(loss)
        return {"loss": self.loss_tracker.result()}

    def test_step(self, data):
        loss = self._compute_loss(data)
        self.loss_tracker.update_state(loss)
        return {"loss": self.loss_tracker.result()}

    def _compute_loss(self, data):
        ap_distance, an_distance = self.siamese_network(data)
        loss = ap_distance - an_distance
        return ops.maximum(loss + self.margin, 0.0)

    @property
    def metrics(self):
        return [self.loss_tracker]


siamese_model = SiameseModel(siamese_network)
siamese_model.compile(optimizer=DistributedOptimizer(keras.optimizers.Adam(0.001)), weighted_metrics=[])
history = siamese_model.fit(train_dataset, epochs=3, validation_data=val_dataset)

sample = next(iter(train_dataset))
anchor, positive, negative = sample
cosine_similarity = metrics.CosineSimilarity()
positive_similarity = cosine_similarity(embedding(anchor), embedding(positive))
print("Positive similarity:", positive_similarity.numpy())
assert len(history.history["val_loss"]) == 3
print("RESULT validation loss", history.history["val_loss"][-1])
