"""What a worker does between two exchanges: the plan of its pushes and pulls, and the sum of its gradients.

It may import `downpour.protos`, `downpour.ps.core` and `downpour.worker.exchange`. It never imports TensorFlow.
"""
