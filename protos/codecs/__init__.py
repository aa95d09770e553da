"""Codecs, which represent a vector as bytes: their registry, stochastic quantization, and the largest elements only.

It may import `protos`. Its modules are pure: they do no I/O and read no clock.
"""
