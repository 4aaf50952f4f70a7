"""Submitting trainings."""
