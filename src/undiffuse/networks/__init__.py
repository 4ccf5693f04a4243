"""Networks: F(x, c_noise, label), each with its config beside it."""
