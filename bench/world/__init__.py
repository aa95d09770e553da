"""Deterministic simulation of whole jobs: the real servers and workers in one process, in virtual time, with faults.

`system/` replaces the operating system and the network. The other modules describe a job, its faults, the checks, and
the command. This package may import every package, and never TensorFlow.
"""
