"""Image segmentation with a U-Net-like architecture (keras.io/examples/vision/oxford_pets_image_segmentation)."""

import os

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from tensorflow import data as tf_data
from tensorflow import image as tf_image
from tensorflow import io as tf_io

from downpour import DistributedOptimizer

input_dir = "images/"
target_dir = "annotations/trimaps/"
img_size = (32, 32)
num_classes = 3
batch_size = 8

os.makedirs(input_dir, exist_ok=True)
os.makedirs(target_dir, exist_ok=True)
rng = np.random.default_rng(0)
for number in range(64):
    mask = np.ones((40, 40), "uint8")
    top, left = rng.integers(2, 16, 2)
    mask[top : top + 18, left : left + 18] = 2
    mask[top + 3 : top + 15, left + 3 : left + 15] = 3
    pixels = np.clip(mask[:, :, None] * 70 + rng.normal(0, 20, (40, 40, 3)), 0, 255).astype("uint8")
    tf_io.write_file(f"{input_dir}{number:03d}.jpg", tf_io.encode_jpeg(pixels))
    tf_io.write_file(f"{target_dir}{number:03d}.png", tf_io.encode_png(mask[:, :, None]))

input_img_paths = sorted(os.path.join(input_dir, f) for f in os.listdir(input_dir) if f.endswith(".jpg"))
target_img_paths = sorted(
    os.path.join(target_dir, f) for f in os.listdir(target_dir) if f.endswith(".png") and not f.startswith(".")
)
print("Number of samples:", len(input_img_paths))


def get_dataset(batch_size, img_size, input_img_paths, target_img_paths, max_dataset_len=None):
    def load_img_masks(input_img_path, target_img_path):
        input_img = tf_io.read_file(input_img_path)
        input_img = tf_io.decode_png(input_img, channels=3)
        input_img = tf_image.resize(input_img, img_size)
        input_img = tf_image.convert_image_dtype(input_img, "float32")
        target_img = tf_io.read_file(target_img_path)
        target_img = tf_io.decode_png(target_img, channels=1)
        target_img = tf_image.resize(target_img, img_size, method="nearest")
        target_img = tf_image.convert_image_dtype(target_img, "uint8")
        target_img -= 1
        return input_img, target_img

    if max_dataset_len:
        input_img_paths = input_img_paths[:max_dataset_len]
        target_img_paths = target_img_paths[:max_dataset_len]
    dataset = tf_data.Dataset.from_tensor_slices((input_img_paths, target_img_paths))
    dataset = dataset.map(load_img_masks, num_parallel_calls=tf_data.AUTOTUNE)
    return dataset.batch(batch_size)


def get_model(img_size, num_classes):
    inputs = keras.Input(shape=img_size + (3,))
    x = layers.Conv2D(8, 3, strides=2, padding="same")(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.Activation("relu")(x)
    previous_block_activation = x
    for filters in [16]:
        x = layers.Activation("relu")(x)
        x = layers.SeparableConv2D(filters, 3, padding="same")(x)
        x = layers.BatchNormalization()(x)
        x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
        residual = layers.Conv2D(filters, 1, strides=2, padding="same")(previous_block_activation)
        x = layers.add([x, residual])
        previous_block_activation = x
    for filters in [16, 8]:
        x = layers.Activation("relu")(x)
        x = layers.Conv2DTranspose(filters, 3, padding="same")(x)
        x = layers.BatchNormalization()(x)
        x = layers.UpSampling2D(2)(x)
        residual = layers.UpSampling2D(2)(previous_block_activation)
        residual = layers.Conv2D(filters, 1, padding="same")(residual)
        x = layers.add([x, residual])
        previous_block_activation = x
    outputs = layers.Conv2D(num_classes, 3, activation="softmax", padding="same")(x)
    return keras.Model(inputs, outputs)


import random

val_samples = 16
random.Random(1337).shuffle(input_img_paths)
random.Random(1337).shuffle(target_img_paths)
train_dataset = get_dataset(
    batch_size, img_size, input_img_paths[:-val_samples], target_img_paths[:-val_samples], max_dataset_len=1000
)
valid_dataset = get_dataset(batch_size, img_size, input_img_paths[-val_samples:], target_img_paths[-val_samples:])

model = get_model(img_size, num_classes)
model.compile(optimizer=DistributedOptimizer(keras.optimizers.Adam(0.003)), loss="sparse_categorical_crossentropy")
callbacks = [keras.callbacks.ModelCheckpoint("oxford_segmentation.keras", save_best_only=True)]
history = model.fit(train_dataset, epochs=3, validation_data=valid_dataset, callbacks=callbacks, verbose=2)
val_preds = model.predict(valid_dataset)
assert val_preds.shape == (val_samples, *img_size, num_classes)
assert tf.io.gfile.exists("oxford_segmentation.keras") and len(history.history["loss"]) == 3
print("RESULT loss", history.history["loss"][-1])
