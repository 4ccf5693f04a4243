"""Networks F(x, c_noise, label), each in one file with its config."""
