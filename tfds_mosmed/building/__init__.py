"""From studies to records: preparation in parallel, shards, locks, remote copies."""
