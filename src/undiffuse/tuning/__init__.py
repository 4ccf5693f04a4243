"""The noise levels of few steps, found for one model."""
