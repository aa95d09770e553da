"""Benchmarks of whole trainings beside Keras and TensorFlow's parameter server.

It may import every package.
"""
