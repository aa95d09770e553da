"""Deterministic simulation of whole jobs: the real servers and workers in one process, in virtual time, with faults.

`system/` takes the place of the operating system and the network; the modules here are the job, its faults, its checks
and its command. It may import every package, and never TensorFlow.
"""
