"""`downpour validate`: compares the server with predictions from the literature.

It may import `protos`, `ps.core`, `ps.core.rules`, `worker.exchange`, `bench` and `bench.simulation`.
"""
