"""How a trained network does on images that are harder than its training set."""
