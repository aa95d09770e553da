"""The `model.fit` of a user's script as one worker of a cluster.

It imports `worker.compute`, `worker.exchange`, `worker.script` and never `worker.train`.
"""
