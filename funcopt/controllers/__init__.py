"""The controllers: the seed methods, which watch the run and steer it.

| seed | link | optimizer | file | source |
|---|---|---|---|---|
| PILOT | `agreement_policy` | `pilot` | `pilot/` | pilot-optimizer 0.1.0.post3 |
| OptiRoulette | `roulette` | `optiroulette` | `roulette/` | OptiRoulette 0.1.0 |
| PulseOpt / AEES | `ucb_episodes` | `aees` | `pulseopt/` | pulseopt 0.3.0 |
| AdaptiveOptimizer | | `adaptive` | `adaptive/`, `funcopt/rules` | AdaptiveOptimizer |
"""
