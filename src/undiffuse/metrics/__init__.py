"""Pure functions of features: no files, no progress bars."""
