"""Gradients estimated from fitness: of all weights, layer by layer, of two points, of unrolled inner loops, over ranks."""
