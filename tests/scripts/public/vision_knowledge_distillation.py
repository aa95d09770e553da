"""Knowledge distillation (keras.io/examples/vision/knowledge_distillation)."""

import keras
import numpy as np
from keras import layers, ops

from downpour import DistributedOptimizer


class Distiller(keras.Model):
    def __init__(self, student, teacher):
        super().__init__()
        self.teacher = teacher
        self.student = student

    def compile(self, optimizer, metrics, student_loss_fn, distillation_loss_fn, alpha=0.1, temperature=3):
        super().compile(optimizer=optimizer, metrics=metrics)
        self.student_loss_fn = student_loss_fn
        self.distillation_loss_fn = distillation_loss_fn
        self.alpha = alpha
        self.temperature = temperature

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, allow_empty=False):
        teacher_pred = self.teacher(x, training=False)
        student_loss = self.student_loss_fn(y, y_pred)
        distillation_loss = self.distillation_loss_fn(
            ops.softmax(teacher_pred / self.temperature, axis=1), ops.softmax(y_pred / self.temperature, axis=1)
        ) * (self.temperature**2)
        return self.alpha * student_loss + (1 - self.alpha) * distillation_loss

    def call(self, x):
        return self.student(x)


def network(width, name):
    return keras.Sequential(
        [
            keras.Input(shape=(12, 12, 1)),
            layers.Conv2D(width, (3, 3), strides=(2, 2), padding="same"),
            layers.LeakyReLU(negative_slope=0.2),
            layers.MaxPooling2D(pool_size=(2, 2), strides=(1, 1), padding="same"),
            layers.Conv2D(2 * width, (3, 3), strides=(2, 2), padding="same"),
            layers.Flatten(),
            layers.Dense(5),
        ],
        name=name,
    )


teacher, student = network(8, "teacher"), network(4, "student")
student_scratch = keras.models.clone_model(student)
prototypes = np.random.rand(5, 12, 12, 1)
y_train, y_test = np.random.randint(0, 5, 400), np.random.randint(0, 5, 80)
x_train = (prototypes[y_train] + 0.2 * np.random.randn(400, 12, 12, 1)).astype("float32")
x_test = (prototypes[y_test] + 0.2 * np.random.randn(80, 12, 12, 1)).astype("float32")
batch_size = 32

teacher.compile(
    optimizer=DistributedOptimizer(keras.optimizers.Adam(0.003)),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=[keras.metrics.SparseCategoricalAccuracy()],
)
teacher.fit(x_train, y_train, epochs=3, batch_size=batch_size)
teacher.evaluate(x_test, y_test)
before = [w.copy() for w in teacher.get_weights()]

distiller = Distiller(student=student, teacher=teacher)
distiller.compile(
    optimizer=DistributedOptimizer(keras.optimizers.Adam(0.003)),
    metrics=[keras.metrics.SparseCategoricalAccuracy()],
    student_loss_fn=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    distillation_loss_fn=keras.losses.KLDivergence(),
    alpha=0.1,
    temperature=10,
)
distiller.fit(x_train, y_train, epochs=3, batch_size=batch_size)
_, accuracy = distiller.evaluate(x_test, y_test)
assert all(np.array_equal(a, b) for a, b in zip(before, teacher.get_weights()))

student_scratch.compile(
    optimizer=DistributedOptimizer(keras.optimizers.Adam(0.003)),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=[keras.metrics.SparseCategoricalAccuracy()],
)
student_scratch.fit(x_train, y_train, epochs=3, batch_size=batch_size)
_, of_scratch = student_scratch.evaluate(x_test, y_test)
assert of_scratch > 0.6
print("RESULT accuracy", accuracy, of_scratch)
