"""Prediction of scans, one after another."""
