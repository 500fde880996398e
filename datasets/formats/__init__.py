"""Files of each format, read without trusting them."""
