"""What scripts/measure_quirks.py is made of."""
