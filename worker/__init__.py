"""The worker: it pulls weights, computes gradients with TensorFlow and pushes them.

It may import `downpour.protos` and, for the registries of modes and optimizers, `ps.core`; never `deploy`.
"""

if __name__ != "downpour.worker":  # its folder lies on sys.path: a second copy
    raise ImportError(
        f"the package must be imported as downpour.worker; received {__name__}. Write: import downpour.worker"
    )
