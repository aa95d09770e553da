"""The shard: weights, update rules, consistency modes and staleness policies, as pure state machines.

It imports `downpour.protos`, NumPy and itself; it knows no clock, no files and no network.
"""
