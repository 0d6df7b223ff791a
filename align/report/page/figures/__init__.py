"""Figures of the page, drawn from rows of arms."""
