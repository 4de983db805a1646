"""Studies -> records: parallel preparation, index, shards, locks, remote copies."""
