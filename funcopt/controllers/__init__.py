"""The controllers: the seed methods, which watch the run and steer it.

| seed | link | optimizer | file | source |
|---|---|---|---|---|
| PILOT | `agreement_policy` | `pilot` | `pilot.py`, `policy.py` | pilot-optimizer 0.1.0.post3 |
| OptiRoulette | `roulette` | `optiroulette` | `optiroulette.py`, `pool.py` | OptiRoulette 0.1.0 |
| PulseOpt / AEES | `ucb_episodes` | `aees` | `pulseopt.py`, `bandits.py` | pulseopt 0.3.0 |
| AdaptiveOptimizer | | `adaptive` | `adaptive.py`, `funcopt/rules` | AdaptiveOptimizer |
"""
