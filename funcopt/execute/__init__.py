"""How a step runs: what is declared of a transformation and what a step is given decide on layout, engine and donation."""
