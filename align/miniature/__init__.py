"""The embedded default: a small harmless world and small models, for the comparison on a laptop CPU and for every test.

A mechanism in a jar, not evidence about people's safety.
"""
