"""A script's worker in its cluster: the session of a call of `fit`, its leases and its barriers.

It may import `protos`, `worker.exchange` and `worker.plan`. It never imports Keras.
"""
