"""The contract between parameter servers and workers: messages, frames, layout, codecs, errors."""

import os

# Before gRPC is loaded: else whoever knocks at a server that has TLS, without it, writes a line into its log each time.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
