"""How members are evaluated: under vmap in chunks, one by one, in processes, compiled; and what their answers must be."""
