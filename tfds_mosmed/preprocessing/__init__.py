"""From a scan to the grid of a record: lungs, resizing, statistics, perceptual hashes."""
