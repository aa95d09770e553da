"""The metrics of a script's `fit` over all workers, and the validation of parts of the data by each of them.

It may import `downpour.protos` and, of `downpour.worker.fit`, `cluster` and `data`.
"""
