"""The data of a script: this worker's part of the arguments of `fit`, and data sets whose batches are leased.

It may import `protos`, `ps.core`, `worker.fit.cluster` and `worker.script`.
"""
