"""How params and states are held between steps: leaf by leaf, on vectors, leaves of one shape together."""
