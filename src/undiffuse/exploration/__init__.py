"""A look at the pictures before training: what is there, what is wrong with it, and what noise does to it."""
