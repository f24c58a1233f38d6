"""OptiRoulette: a pool of members, who of them is drawn, and what keeps it whole."""
