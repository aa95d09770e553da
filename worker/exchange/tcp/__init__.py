"""The TCP transport of a worker: one connection to each shard.

It may import `protos` and `worker.exchange`.
"""
