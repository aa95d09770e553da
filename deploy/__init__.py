"""The command line, the launchers, and the views of a job.

It may import `protos` and all of `deploy`. Its modules and folders also import `ps.config`, `ps.config_checks`,
`ps.core`, `ps.trace`, `worker.catalog`, `worker.config`, `worker.fit.process` and `worker.python_source`: settings and
their checks, registries, recorded runs, and the start of a script. It never imports TensorFlow.
"""

if __name__ != "downpour.deploy":  # imported from the repository root, which would load it twice
    raise ImportError(
        f"the package must be imported as downpour.deploy; received {__name__}. Write: import downpour.deploy"
    )
