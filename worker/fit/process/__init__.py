"""Makes a script behave the same on all workers: one source of randomness, a view of the files, and its start.

It may import nothing of the project.
"""
