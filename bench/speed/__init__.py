"""Benchmarks of the data plane, the update rules and a worker's step.

It may import every package.
"""
