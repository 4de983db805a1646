"""Evaluation of trained networks on studies with a reference standard."""
