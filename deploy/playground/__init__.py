"""The playground: a small network on two-dimensional data, trained by NumPy workers on the project's own shard.

It imports `downpour.protos`, `ps.core` and `deploy.dashboard`, and never TensorFlow. The page itself is in `page/`.
"""
