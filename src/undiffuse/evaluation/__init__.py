"""How good the samples are, and the report that says so."""
