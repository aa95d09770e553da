"""The worker: it pulls weights, computes gradients with TensorFlow and pushes them.

It may import `protos` and all of `worker`. Some of its folders also import `ps.core` and `ps.core.rules`, for
the registries of modes and optimizers; none imports `deploy`.
"""

if __name__ != "downpour.worker":  # imported from the repository root, which would load it twice
    raise ImportError(
        f"the package must be imported as downpour.worker; received {__name__}. Write: import downpour.worker"
    )
