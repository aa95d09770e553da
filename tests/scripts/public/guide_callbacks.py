"""Writing your own callbacks (keras.io/guides/writing_your_own_callbacks)."""

import keras
import numpy as np

from downpour import DistributedOptimizer


def get_model():
    model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(1)])
    model.compile(
        optimizer=DistributedOptimizer(keras.optimizers.RMSprop(learning_rate=0.01)),
        loss="mean_squared_error",
        metrics=["mean_absolute_error"],
    )
    return model


x_train = np.random.normal(size=(640, 20)).astype("float32")
y_train = x_train @ np.random.normal(size=(20, 1)).astype("float32")
x_test, y_test = x_train[:100], y_train[:100]


class CustomCallback(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.called = []

    def on_train_begin(self, logs=None):
        print(f"Starting training; got log keys: {list(logs.keys())}")

    def on_epoch_begin(self, epoch, logs=None):
        self.called.append(("epoch", epoch))

    def on_test_begin(self, logs=None):
        self.called.append("test")

    def on_train_batch_end(self, batch, logs=None):
        self.called.append(batch)


custom = CustomCallback()
model = get_model()
model.fit(x_train, y_train, batch_size=64, epochs=1, verbose=0, validation_split=0.5, callbacks=[custom])
batches = [each for each in custom.called if isinstance(each, int)]
assert batches == list(range(5)), custom.called


class LossAndErrorPrintingCallback(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        print(f"Up to batch {batch}, the average loss is {logs['loss']:7.2f}.")

    def on_test_batch_end(self, batch, logs=None):
        print(f"Up to batch {batch}, the average loss is {logs['loss']:7.2f}.")

    def on_epoch_end(self, epoch, logs=None):
        print(f"The average loss for epoch {epoch} is {logs['loss']:7.2f}, error {logs['mean_absolute_error']:7.2f}.")


class EarlyStoppingAtMinLoss(keras.callbacks.Callback):
    def __init__(self, patience=0):
        super().__init__()
        self.patience = patience
        self.best_weights = None

    def on_train_begin(self, logs=None):
        self.wait = 0
        self.stopped_epoch = 0
        self.best = np.inf

    def on_epoch_end(self, epoch, logs=None):
        current = logs.get("loss")
        if np.less(current, self.best):
            self.best = current
            self.wait = 0
            self.best_weights = self.model.get_weights()
        else:
            self.wait += 1
            if self.wait >= self.patience:
                self.stopped_epoch = epoch
                self.model.stop_training = True
                print("Restoring model weights from the end of the best epoch.")
                self.model.set_weights(self.best_weights)

    def on_train_end(self, logs=None):
        if self.stopped_epoch > 0:
            print(f"Epoch {self.stopped_epoch + 1}: early stopping")


class CustomLearningRateScheduler(keras.callbacks.Callback):
    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule

    def on_epoch_begin(self, epoch, logs=None):
        if not hasattr(self.model.optimizer, "learning_rate"):
            raise ValueError('Optimizer must have a "learning_rate" attribute.')
        lr = self.model.optimizer.learning_rate
        scheduled_lr = self.schedule(epoch, lr)
        self.model.optimizer.learning_rate = scheduled_lr
        print(f"\nEpoch {epoch}: Learning rate is {float(np.array(scheduled_lr))}.")


LR_SCHEDULE = [(3, 0.05), (6, 0.01), (9, 0.5)]


def lr_schedule(epoch, lr):
    if epoch < LR_SCHEDULE[0][0] or epoch > LR_SCHEDULE[-1][0]:
        return lr
    for i in range(len(LR_SCHEDULE)):
        if epoch == LR_SCHEDULE[i][0]:
            return LR_SCHEDULE[i][1]
    return lr


model = get_model()
model.fit(x_train, y_train, batch_size=64, epochs=30, verbose=0, callbacks=[EarlyStoppingAtMinLoss()])
model = get_model()
history = model.fit(
    x_train, y_train, batch_size=64, epochs=10, verbose=0,
    callbacks=[LossAndErrorPrintingCallback(), CustomLearningRateScheduler(lr_schedule)],
)  # fmt: skip
assert abs(float(model.optimizer.learning_rate) - 0.5) < 1e-6
print("RESULT loss", history.history["loss"][5])
