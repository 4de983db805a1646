"""Inspection of a cohort before its records are built."""
