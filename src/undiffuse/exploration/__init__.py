"""A look at the images before training: what is there, what is wrong with it, and what noise does to it."""
