"""DICOM series: headers, order, derivation and pixels of their slices."""
