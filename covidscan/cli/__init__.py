"""Flags and the frame of every command."""
