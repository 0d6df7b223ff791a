"""The verbs of the command `align`, and `dry_run=true`: wiring over the other rooms."""
