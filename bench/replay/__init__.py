"""`downpour replay`: a recorded run is done again and compared bit for bit.

It may import every package.
"""
