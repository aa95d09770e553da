"""The contract between parameter servers and workers: messages, frames, layout, codecs, errors."""
