"""Training: the loop, its optimizers, the average of the weights, and the session that runs them in a run folder."""
