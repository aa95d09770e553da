"""Interfaces to the operating system: clocks, threads, files, random numbers and HTTP; a simulator replaces them.

Each module holds an interface, the implementation by the operating system, and `use`, which replaces it for the whole
process. It may import nothing of the project; the network is replaced in `protos.channel`.
"""
