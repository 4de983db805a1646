"""Processes of the systems: `python -m tests.peers.systems.NAME TASK SETTINGS`; settings and replies are JSON."""
