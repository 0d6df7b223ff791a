"""Roles: the models and functions that write, judge and caption."""
