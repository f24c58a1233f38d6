"""How a unit takes a step: leaf by leaf, in chunks, on one vector, compiled, inside a graph that is traced already."""
