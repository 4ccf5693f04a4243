"""Images: found, decoded once into a uint8 array on disk, read as batches in [-1, 1]."""
