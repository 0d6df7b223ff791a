"""Ability sets that another program, lmms_eval, measures on the checkpoint, in a process and an environment of its own."""
