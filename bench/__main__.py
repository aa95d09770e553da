"""Dispatches `downpour bench NAME [flags]`, which is `python -m bench NAME [flags]`."""

from __future__ import annotations

import importlib
import sys

BENCHES = {
    "speedup": "samples/s and time to accuracy against the number of workers",
    "staleness": "its distribution beside the prediction, and what it costs, by compensation and mode",
    "baselines": "samples/s beside TensorFlow's ParameterServerStrategy and Keras's model.fit",
    "quality": "test accuracy over seeds beside single-process Keras",
    "course": "the course's models, by name, beside single-process Keras",
    "chaos": "kills processes of a running job and checks that nothing was lost",
    "checkpoints": "push-pulls/s with and without checkpoints, in turns",
    "recording": "what it costs to keep what `downpour replay` needs",
    "gradient": "a worker's step beside the bare tf.function, plain and through XLA",
    "modes": "pictures of docs/modes.md, from real runs and in virtual time",
    "kernels": "time of the update rules beside that of a memcpy",
    "transport": "push-pulls beside raw echoes, memcpy, idle workers and a crowd of busy ones",
    "launchers": "samples/s of the same job, started by each launcher",
    "codecs": "bytes, time and final loss of each codec",
}


def main(argv: list[str]) -> int:
    """Runs one bench and returns its exit status."""
    rows = "\n".join(f"  {name:<13}{line}" for name, line in BENCHES.items())
    usage = f"usage: downpour bench NAME [flags]\n\n{rows}\n\n`downpour bench NAME --help` lists its flags."
    if not argv or argv[0] in ("-h", "--help"):
        print(usage)
        return 0 if argv else 2
    name, *rest = argv
    if name not in BENCHES:
        print(f"downpour bench: unknown bench {name!r}; benches are {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    status: int = importlib.import_module(f"bench.{name}").main(rest)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
