"""A script's worker in its cluster: the session of a call of `fit`, its leases and its barriers.

It imports `worker.exchange` and `protos`, and neither Keras nor another folder of `worker.fit`.
"""
