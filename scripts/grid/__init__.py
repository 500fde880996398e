"""The grid of the paper's tables: which runs fill which cells, how they stand, and starting those that are missing."""
