"""Audits: what the text of a set gives away, and how far a judge agrees with people."""
