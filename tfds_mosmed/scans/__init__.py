"""From files to scans: NIfTI and DICOM, found in folders and read."""
