"""walbatch: a durable, write-ahead-logged batcher for product analytics. OK means "on disk"."""
