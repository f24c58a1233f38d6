"""From fitness to weights: what counts as fitness, ranks and utilities, recombination."""
