"""Everything that the command line does, as functions: one a capability."""
