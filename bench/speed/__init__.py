"""Benchmarks of the data plane, the update rules, the codecs and a worker's step.

It may import `protos`, all of `ps`, all of `worker`, all of `deploy`, `bench` and `bench.competitors`.
"""
