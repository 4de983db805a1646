"""One process a system: `python -m tests.peers.systems.NAME WHAT SETTINGS`, settings as JSON, answers as lines of JSON."""
