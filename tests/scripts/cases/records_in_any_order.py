"""TFRecords read by a parallel interleave and a parallel map that need not keep the order: each record is used once."""

import os

import keras
import numpy as np
import tensorflow as tf

from downpour import DistributedOptimizer

os.makedirs("records", exist_ok=True)
for number in range(4):
    with tf.io.TFRecordWriter(f"records/{number}.tfrecord") as writer:
        for index in range(30 * number, 30 * number + 30):
            values = {
                "x": tf.train.Feature(float_list=tf.train.FloatList(value=[1.0, 2.0, 3.0])),
                "index": tf.train.Feature(int64_list=tf.train.Int64List(value=[index])),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=values)).SerializeToString())


def parse(record):
    features = {"x": tf.io.FixedLenFeature([3], tf.float32), "index": tf.io.FixedLenFeature([], tf.int64)}
    example = tf.io.parse_single_example(record, features)
    return example["x"], tf.cast(example["index"], tf.float32)


class Total(keras.metrics.Metric):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.total = self.add_weight(name="total", initializer="zeros")
        self.squares = self.add_weight(name="squares", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.total.assign_add(keras.ops.sum(y_true))
        self.squares.assign_add(keras.ops.sum(y_true**2))

    def result(self):
        return {"total": self.total, "squares": self.squares}


auto = tf.data.AUTOTUNE
data = tf.data.Dataset.list_files("records/*.tfrecord")
data = data.interleave(tf.data.TFRecordDataset, cycle_length=4, num_parallel_calls=auto, deterministic=False)
data = data.map(parse, num_parallel_calls=auto, deterministic=False).cache().shuffle(120)
options = tf.data.Options()
options.deterministic = False
data = data.batch(8, num_parallel_calls=auto).prefetch(auto).with_options(options)
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
model.compile(DistributedOptimizer(keras.optimizers.SGD(1e-5)), "mse", metrics=[Total()])
history = model.fit(data, epochs=3, verbose=0).history
assert np.allclose(history["total"], sum(range(120))), history
assert np.allclose(history["squares"], sum(k * k for k in range(120))), history
print("RESULT", history["total"])
