"""Downloading, checking and unpacking data sets: what scripts/prepare_data.py does."""
