"""PulseOpt: bandits whose arms are multipliers and noise, episode by episode."""
