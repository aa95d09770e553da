"""The metrics of a script's `fit` over all workers, and the validation of parts of the data by each of them.

It may import `protos`, `worker.fit.cluster` and `worker.fit.data`.
"""
