"""What a worker does between two exchanges: the plan of its pushes and pulls, and the sum of its gradients.

It may import `protos`, `ps.core` and `worker.exchange`. It never imports TensorFlow.
"""
