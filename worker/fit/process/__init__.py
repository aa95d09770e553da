"""What makes the script alike on all workers: one source of randomness, a view of the files, and the ways to start it.

It imports `worker.fit.cluster` and no other folder of `worker.fit`.
"""
