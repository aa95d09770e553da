"""What the benchmarks compare, each in new processes: downpour, `model.fit` and TensorFlow's parameter server.

It may import `protos`, `worker.catalog`, `worker.compute`, `worker.fit.optimizer`, `deploy.launch` and `bench`.
"""
