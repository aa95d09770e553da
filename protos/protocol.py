"""The version of the protocol between servers and workers, which both sides must share.

A change that another version of the program would misread raises it.
"""

from __future__ import annotations

PROTOCOL = 3
