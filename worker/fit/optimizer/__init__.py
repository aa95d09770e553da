"""The Keras optimizer in a cluster: its description for the servers, its moments, and the push in its `apply`.

It imports `worker.fit.cluster`, `worker.fit.data`, `worker.compute`, `worker.exchange`, `worker.script`, `ps.core`
with its rules, and nothing else of `worker.fit`.
"""
