"""The worker: pulls weights, computes gradients with TensorFlow, pushes them."""
