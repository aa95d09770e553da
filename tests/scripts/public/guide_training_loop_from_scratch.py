"""Writing a training loop from scratch (keras.io/guides/writing_a_custom_training_loop_in_tensorflow)."""

import time

import keras
import numpy as np
import tensorflow as tf

import downpour


def get_model():
    inputs = keras.Input(shape=(20,), name="digits")
    x1 = keras.layers.Dense(32, activation="relu")(inputs)
    x2 = keras.layers.Dense(32, activation="relu")(x1)
    outputs = keras.layers.Dense(4, name="predictions")(x2)
    return keras.Model(inputs=inputs, outputs=outputs)


model = get_model()
centres = np.random.normal(size=(4, 20))
y_train, y_val = np.random.randint(0, 4, 512), np.random.randint(0, 4, 128)
x_train = (centres[y_train] + 0.7 * np.random.normal(size=(512, 20))).astype("float32")
x_val = (centres[y_val] + 0.7 * np.random.normal(size=(128, 20))).astype("float32")
batch_size = 32
val_dataset = tf.data.Dataset.from_tensor_slices((x_val, y_val)).batch(batch_size)

optimizer = keras.optimizers.Adam(learning_rate=1e-2)
loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
train_acc_metric = keras.metrics.SparseCategoricalAccuracy()
val_acc_metric = keras.metrics.SparseCategoricalAccuracy()


@tf.function
def train_step(x, y):
    with tf.GradientTape() as tape:
        logits = model(x, training=True)
        loss_value = loss_fn(y, logits)
        loss_value += sum(model.losses)
    grads = tape.gradient(loss_value, model.trainable_weights)
    optimizer.apply(grads, model.trainable_weights)
    train_acc_metric.update_state(y, logits)
    return loss_value


@tf.function
def test_step(x, y):
    val_logits = model(x, training=False)
    val_acc_metric.update_state(y, val_logits)


epochs = 3
with downpour.training(model, optimizer) as job:
    for epoch in range(epochs):
        start_time = time.time()
        for step, indices in enumerate(job.leased(len(x_train), batch_size)):
            loss_value = train_step(tf.gather(x_train, indices), tf.gather(y_train, indices))
            if step % 100 == 0:
                print(f"Training loss (for 1 batch) at step {step}: {float(loss_value):.4f}")
        train_acc = train_acc_metric.result()
        print(f"Training acc over epoch: {float(train_acc):.4f}")
        train_acc_metric.reset_state()
        for x_batch_val, y_batch_val in val_dataset:
            test_step(x_batch_val, y_batch_val)
        val_acc = val_acc_metric.result()
        val_acc_metric.reset_state()
        print(f"Validation acc: {float(val_acc):.4f}")
assert int(optimizer.iterations) == 3 * 16
assert float(val_acc) > 0.7
print("RESULT validation accuracy", float(val_acc))
