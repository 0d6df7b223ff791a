"""Published training sets, one module each."""
