"""Review by people: a page and a table go out, decisions come back."""
