"""The miniature: a small harmless world and small models, for a laptop CPU and for tests.

It is a toy model, not evidence about people's safety.
"""
