"""What there is and what it says of itself: behind `python -m funcopt list` and `describe`."""
