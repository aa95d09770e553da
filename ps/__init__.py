"""The parameter server: shards of the weights and the coordinator of the job.

It may import `protos` and all of `ps`. It uses NumPy, and never imports TensorFlow, `worker` or `deploy`.
"""

if __name__ != "downpour.ps":  # its folder lies on sys.path: a second copy
    raise ImportError(f"the package must be imported as downpour.ps; received {__name__}. Write: import downpour.ps")
