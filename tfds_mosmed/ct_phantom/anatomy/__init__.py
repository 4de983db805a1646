"""Anatomy of the phantoms."""
