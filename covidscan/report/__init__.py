"""The report that a reader is given: a page, a model card, a montage of slices."""
