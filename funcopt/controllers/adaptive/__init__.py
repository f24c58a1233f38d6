"""Rules that move knobs by the loss: `fo.adaptive`."""
