"""Algorithms of a convolution; `covidscan.models.layers` alone imports them."""
