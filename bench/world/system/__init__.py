"""A simulated operating system: scheduler, threads, event loops, network, disks and processes in virtual time.

Its classes implement the interfaces of `protos.system` and `protos.channel`. This package may import `protos`.
"""
