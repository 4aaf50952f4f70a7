"""Programs that start other programs."""
