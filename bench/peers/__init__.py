"""Parameter servers implemented with Ray and PyTorch RPC, which `downpour bench baselines --peers` measures.

It may import `protos`, `worker.catalog`, `bench` and `bench.competitors`.
"""
