"""MosMedData: 1110 chest CT studies graded CT-0 to CT-4."""
