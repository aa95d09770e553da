"""What Keras offers, row by row: each row trains with servers as with plain Keras, is refused, or differs as stated.

The rows of arguments come from Keras's own signatures, so that an argument of a new version fails the test until it has
a decision here. `tests/scripts/fidelity.py` runs the rows, `tests/keras/test_fidelity.py` compares the results.
"""
