"""The operating system as the program sees it: clocks, threads, files and random numbers, which a simulator replaces.

Each module holds an interface, the implementation by the operating system, and `use`, which replaces it for the whole
process. It may import only the standard library; the network is replaced in `downpour.protos.channel`.
"""
