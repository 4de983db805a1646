"""Diseases of the phantoms, and findings that resemble them."""
