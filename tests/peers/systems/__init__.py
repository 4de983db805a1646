"""One process a system: `python -m tests.peers.systems.NAME WHAT SETTINGS`, settings and answers as JSON."""
