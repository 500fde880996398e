"""Recordings: read, cached, resident on the device, shifted, mixed with background, made into features."""
