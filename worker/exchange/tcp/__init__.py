"""The TCP transport of a worker: one connection to each shard.

It may import `downpour.protos`, `downpour.protos.tcp` and `downpour.worker.exchange`.
"""
