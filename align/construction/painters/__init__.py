"""Painters: models and functions that make and edit images."""
