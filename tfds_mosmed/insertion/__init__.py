"""Insertion of lesions into real scans."""
