"""The parameter server: shards of the weights and the coordinator of the job.

It may import `protos` and all of `ps`. It uses NumPy, and never imports TensorFlow, `worker` or `deploy`.
Where a folder names "the settings of `ps`", these are the modules `config`, `config_change`, `config_checks`,
`config_values` and `optimizer_settings`.
"""

if __name__ != "downpour.ps":  # imported from the repository root, which would load it twice
    raise ImportError(f"the package must be imported as downpour.ps; received {__name__}. Write: import downpour.ps")
