"""One file per method: recurrence, state, link, ready-made optimizer."""
