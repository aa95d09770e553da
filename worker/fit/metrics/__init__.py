"""Metrics reduced over all workers, and validation data divided among them.

It may import `protos`, `worker.fit.cluster` and `worker.fit.data`.
"""
