"""Deterministic simulation of whole jobs: the real servers and workers in one process, in virtual time, with faults.

The scheduler, threads, event loops, network, disks and processes here implement the interfaces of
`downpour.protos.system` and `downpour.protos.channel`. It may import every package, and never TensorFlow.
"""
