"""The subcommands: one function each, whose signature and docstring are its --help."""
