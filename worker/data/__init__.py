"""MNIST as package data, and the script that made it."""
