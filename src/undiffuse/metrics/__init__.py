"""Pure functions of features: arrays in, numbers out. No files and no progress bars."""
