"""Synthetic chest CT with known lesions."""
