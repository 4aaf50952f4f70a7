"""Submitting evaluations."""
