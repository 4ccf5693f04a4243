"""The self-contained page, its style, image grids and film strips."""
