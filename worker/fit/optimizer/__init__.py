"""The Keras optimizer in a cluster: its description for the servers, its moments, and the push in its `apply`.

It may import `protos`, `ps.core.rules`, `worker.compute`, `worker.exchange`, `worker.script`, `worker.fit.cluster` and
`worker.fit.data`.
"""
