"""The parameter server: shards of the weights and the coordinator of the job. NumPy only."""
