"""Exchange with other programs' weights and configs: plain tensors and JSON, nothing of theirs is imported or run."""
