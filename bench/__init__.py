"""Benchmarks, simulator and checks that use both sides."""
