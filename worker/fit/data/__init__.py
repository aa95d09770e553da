"""The data of a script: this worker's part of the arguments of `fit`, and data sets whose batches are leased.

It imports `worker.fit.cluster`, `ps.core` and no other folder of `worker.fit`.
"""
