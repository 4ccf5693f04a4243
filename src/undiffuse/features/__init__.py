"""Feature networks, their weights, sets of images, and the cache of features."""
