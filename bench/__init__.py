"""Benchmarks, the simulator, the replay of runs, and checks that use both servers and workers."""

if __name__ != "downpour.bench":  # its folder lies on sys.path: a second copy
    raise ImportError(
        f"the package must be imported as downpour.bench; received {__name__}. Write: import downpour.bench"
    )
