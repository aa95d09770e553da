"""Keras's wrappers for scikit-learn (keras.io/api/utils/sklearn_wrappers), in a pipeline and a cross-validation."""

import keras
import numpy as np
from sklearn.datasets import make_classification
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from downpour import DistributedOptimizer


def dynamic_model(X, y, loss, layers=(10,)):
    n_features_in = X.shape[1]
    inp = keras.layers.Input(shape=(n_features_in,))
    hidden = inp
    for layer_size in layers:
        hidden = keras.layers.Dense(layer_size, activation="relu")(hidden)
    n_outputs = y.shape[1] if len(y.shape) > 1 else 1
    out = keras.layers.Dense(n_outputs, activation="softmax")(hidden)
    model = keras.Model(inp, out)
    model.compile(loss=loss, optimizer=DistributedOptimizer(keras.optimizers.RMSprop(0.01)))
    return model


X, y = make_classification(n_samples=300, n_features=10, n_informative=5, n_classes=3, random_state=0)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
est = keras.wrappers.SKLearnClassifier(
    model=dynamic_model, model_kwargs={"loss": "categorical_crossentropy", "layers": (16,)},
    fit_kwargs={"epochs": 6, "verbose": 0},
)  # fmt: skip
pipeline = make_pipeline(StandardScaler(), est)
pipeline.fit(X_train, y_train)
score = pipeline.score(X_test, y_test)
scores = cross_val_score(pipeline, X, y, cv=2)
assert np.isfinite(scores).all() and score > 0.4, (score, scores)
print("RESULT accuracy", score, *scores)
