"""The shard: weights, update rules, consistency modes and staleness policies, as pure state machines.

This package may import `protos` and `ps.core.rules`; of `protos`, only modules that are pure themselves. It uses NumPy,
and no clock, no files and no network.
"""
