"""Whole runs: what surrounds the training loop, from a configuration to a record."""
