"""Trainers that people use, each in an environment of its own: a file for each, which writes its
configuration and starts it.
"""
