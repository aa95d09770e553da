"""A simulated operating system: scheduler, threads, event loops, network, disks and processes in virtual time.

They implement the interfaces of `downpour.protos.system` and `downpour.protos.channel`, and may import only `protos`.
"""
