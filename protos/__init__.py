"""The contract between parameter servers and workers: messages, frames, layout, codecs and errors.

The modules beside the folders may import `protos.access`, `protos.job_file`, `protos.sentences` and `protos.system`.
The package imports no other package of the project, and never TensorFlow.
"""

import os

if __name__ != "downpour.protos":  # imported from the repository root, which would load it twice
    raise ImportError(
        f"the package must be imported as downpour.protos; received {__name__}. Write: import downpour.protos"
    )

# Before gRPC is loaded; otherwise each client that connects without TLS to a server with TLS adds a line to its log.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
