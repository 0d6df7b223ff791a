"""The figures of the page, from rows of arms."""
