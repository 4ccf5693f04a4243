"""The run folder: config, checkpoints and logs; the gallery of samples; finding runs by name."""
