"""The verbs of the command `align`, and `dry_run=true`; they connect the other packages."""
