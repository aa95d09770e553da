"""When a worker pushes and pulls, the sum of its gradients, and advice on staleness.

It may import `protos`, `ps.core` and `worker.exchange`. It never imports TensorFlow.
"""
