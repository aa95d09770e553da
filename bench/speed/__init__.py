"""Benchmarks of the data plane, the update rules, the codecs and a worker's step.

It may import every package of `downpour`; nothing but the benchmarks and tests imports it.
"""
