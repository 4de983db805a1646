"""Prediction of new studies."""
