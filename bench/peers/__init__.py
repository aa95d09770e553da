"""Parameter servers written with the means of Ray and of PyTorch, which `downpour bench baselines --peers` measures.

It may import `protos`, `worker.catalog`, `bench` and `bench.competitors`.
"""
