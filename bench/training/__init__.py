"""Benchmarks of whole trainings, compared with Keras and with TensorFlow's parameter server.

It may import every package of `downpour`; nothing but the benchmarks and tests imports it.
"""
