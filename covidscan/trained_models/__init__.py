"""Networks restored from a run, and exported ones."""
