"""Benchmarks, the simulator, the replay of runs, the conformance suite and the chaos test.

It may import every package of `downpour`; nothing but tests imports it.
"""

if __name__ != "downpour.bench":  # its folder lies on sys.path: a second copy
    raise ImportError(
        f"the package must be imported as downpour.bench; received {__name__}. Write: import downpour.bench"
    )
