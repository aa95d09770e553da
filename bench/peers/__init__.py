"""Parameter servers written with the means of Ray and of PyTorch, which `downpour bench baselines --peers` measures.

It may import every package of `downpour`; nothing but the benchmarks and tests imports it.
"""
