"""The training of a user's Keras script as one worker of a cluster: `DistributedOptimizer`, `LeasedDataset`, `fit`.

It imports `worker.compute`, `worker.exchange`, `worker.script`, `ps.core` and never `worker.train`.
"""
