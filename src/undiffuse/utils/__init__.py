"""What every other package stands on: devices, files, randomness, the terminal. Nothing here knows diffusion."""
