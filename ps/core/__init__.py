"""The shard: weights, update rules, consistency modes and staleness policies, as pure state machines.

This package may import `downpour.protos` and NumPy. It uses no clock, no files and no network.
"""
