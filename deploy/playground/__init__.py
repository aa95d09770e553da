"""The playground: a small network on two-dimensional data, trained by NumPy workers on the project's own shard.

It may import `protos`, `ps.core` and `deploy.dashboard`. It never imports TensorFlow. The page itself is in `page/`.
"""
