"""Reinforcement learning by evolution: environments as pure functions, rollouts as objectives, and a way to those of gymnasium."""
