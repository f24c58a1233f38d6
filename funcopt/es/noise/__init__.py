"""What members are perturbed by: distributions, where their numbers come from, weights that are not built."""
