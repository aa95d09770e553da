"""The tests: one file for each part, of the system as a whole where processes are needed."""
