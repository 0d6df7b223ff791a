"""Audits: how much harm the text of a benchmark shows, and how far a judge agrees with people."""
