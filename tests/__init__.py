"""Tests, in a folder for each folder of sources.

`jobs`, `keras` and `scripts` test whole systems in real processes; `support` contains what tests share.
"""
