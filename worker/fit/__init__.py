"""The training of a user's Keras script as one worker of a cluster: `DistributedOptimizer`, `LeasedDataset`, `fit`.

It may import `protos`, `worker.config`, `worker.exchange`, `worker.quiet_tensorflow`, `worker.script` and all of
`worker.fit`. Neither it nor its folders import `worker.train`.
"""
