"""Maps of evidence in the study's own space, for people: NIfTI, pictures, a page with a viewer."""

from covidscan.explanation.picture import overlay_png
from covidscan.explanation.write import write_explanation

__all__ = ["overlay_png", "write_explanation"]
