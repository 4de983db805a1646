"""Command line: flags, and the frame of every command."""
