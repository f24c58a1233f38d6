"""The rate that finds itself: `find_rate` watches by how much each step was too short, `rate_free` makes an optimizer of it."""
