"""Benchmarks, the simulators, the replay of runs, the conformance suite and the chaos test.

Each folder states what it may import. The modules beside the folders may import `protos`, `worker.catalog`,
`worker.exchange` and `deploy.launch`. No other package imports `bench`: `deploy` starts its commands by their names.
"""

if __name__ != "downpour.bench":  # imported from the repository root, which would load it twice
    raise ImportError(
        f"the package must be imported as downpour.bench; received {__name__}. Write: import downpour.bench"
    )
