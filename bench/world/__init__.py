"""Deterministic simulation of whole jobs: the real servers and workers in one process, in virtual time, with faults.

`system/` replaces the operating system and the network, and `checks/` examines the jobs. The other modules describe a
job, its faults and the command. They may import `protos`, all of `ps`, `worker.config`, `worker.exchange`,
`worker.plan`, `worker.train`, `deploy.launch`, `bench.world.checks` and `bench.world.system`. They never import
TensorFlow.
"""
