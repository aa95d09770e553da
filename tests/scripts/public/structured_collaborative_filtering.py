"""Collaborative filtering for movie recommendations (keras.io/examples/structured_data/collaborative_filtering_movielens)."""

import keras
import numpy as np
from keras import layers, ops

from downpour import DistributedOptimizer

rng = np.random.default_rng(42)
num_users, num_movies = 40, 60
taste, kind = rng.normal(size=(num_users, 3)), rng.normal(size=(num_movies, 3))
user_ids, movie_ids = rng.integers(0, num_users, 1200), rng.integers(0, num_movies, 1200)
rating = (taste[user_ids] * kind[movie_ids]).sum(1)
min_rating, max_rating = min(rating), max(rating)

x = np.stack([user_ids, movie_ids], 1)
y = ((rating - min_rating) / (max_rating - min_rating)).astype("float32")
order = rng.permutation(len(x))
x, y = x[order], y[order]
train_indices = int(0.9 * len(x))
x_train, x_val, y_train, y_val = x[:train_indices], x[train_indices:], y[:train_indices], y[train_indices:]

EMBEDDING_SIZE = 8


class RecommenderNet(keras.Model):
    def __init__(self, num_users, num_movies, embedding_size, **kwargs):
        super().__init__(**kwargs)
        self.user_embedding = layers.Embedding(
            num_users, embedding_size, embeddings_initializer="he_normal",
            embeddings_regularizer=keras.regularizers.l2(1e-6),
        )  # fmt: skip
        self.user_bias = layers.Embedding(num_users, 1)
        self.movie_embedding = layers.Embedding(
            num_movies, embedding_size, embeddings_initializer="he_normal",
            embeddings_regularizer=keras.regularizers.l2(1e-6),
        )  # fmt: skip
        self.movie_bias = layers.Embedding(num_movies, 1)

    def call(self, inputs):
        user_vector = self.user_embedding(inputs[:, 0])
        user_bias = self.user_bias(inputs[:, 0])
        movie_vector = self.movie_embedding(inputs[:, 1])
        movie_bias = self.movie_bias(inputs[:, 1])
        dot_user_movie = ops.tensordot(user_vector, movie_vector, 2)
        x = dot_user_movie + user_bias + movie_bias
        return ops.nn.sigmoid(x)


model = RecommenderNet(num_users, num_movies, EMBEDDING_SIZE)
model.compile(
    loss=keras.losses.BinaryCrossentropy(),
    optimizer=DistributedOptimizer(keras.optimizers.Adam(learning_rate=0.001)),
)
history = model.fit(x=x_train, y=y_train, batch_size=64, epochs=3, verbose=1, validation_data=(x_val, y_val))

user = int(user_ids[0])
candidates = np.array([[user, movie] for movie in range(num_movies)])
ratings = model.predict(candidates, verbose=0).flatten()
print("Recommended:", ratings.argsort()[-3:][::-1])
assert np.isfinite(history.history["val_loss"]).all()
print("RESULT validation loss", history.history["val_loss"][-1])
