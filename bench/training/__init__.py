"""Benchmarks of whole trainings, compared with Keras and with TensorFlow's parameter server.

It may import `protos`, `ps.core`, `ps.core.rules`, `worker.catalog`, `deploy.config`, `bench`, `bench.competitors`,
`bench.peers` and `bench.simulation`.
"""
