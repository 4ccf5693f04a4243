"""Reading and writing other programs' models: only tensors and JSON; none of their code is imported or run."""
