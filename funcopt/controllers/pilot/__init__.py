"""PILOT: the policy of agreement and what it steers."""
