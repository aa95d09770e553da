"""The checks of simulated jobs: after every event, with every reply and checkpoint, and at the end.

They read the state of the simulated servers, and report violations to `World.problem`. This package may import
`protos`, all of `ps`, `bench.chaos` and `bench.world.system`. It never imports TensorFlow.
"""
