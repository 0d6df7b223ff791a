"""Settings from files and arguments: recipe + suite + model + command line -> one typed configuration."""
