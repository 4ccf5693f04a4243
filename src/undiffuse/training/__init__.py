"""Training: the loop, its optimizers and EMA, and the session that runs them in a run folder, with observers."""
