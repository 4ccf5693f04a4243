"""Diffusion on one axis, the noise level sigma: x = x0 + sigma * eps. Torch only, no input or output."""
