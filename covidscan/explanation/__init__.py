"""Saliency maps of a network's predictions, as NIfTI, as a picture and as a page with a viewer."""
