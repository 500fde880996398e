"""Images that are read while a network trains: from class folders or tar shards, by worker processes."""
