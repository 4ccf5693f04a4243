"""From a run to images: the model, its noise levels, and the samplers' steps."""
