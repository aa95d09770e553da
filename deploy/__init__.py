"""The command line, the launchers, and the views of a job.

It may import `protos` and all of `deploy`. Its folders also import the settings of `ps` and `worker`, and the
registries of `worker`. It never imports TensorFlow.
"""

if __name__ != "downpour.deploy":  # imported from the repository root, which would load it twice
    raise ImportError(
        f"the package must be imported as downpour.deploy; received {__name__}. Write: import downpour.deploy"
    )
