"""Interfaces to the operating system, which a simulator replaces, and other access to the machine.

`clock`, `disk`, `entropy` and `threads` each hold an interface, the implementation by the operating system, and `use`,
which replaces it for the whole process. `command`, `descriptors`, `http`, `json_text` and `progress` are not replaced.
It may import nothing of the project; the network is replaced in `protos.channel`.
"""
