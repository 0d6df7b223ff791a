"""A dataset's files: folders, archives, tables and the Hub, read in place."""
