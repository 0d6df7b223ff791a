"""Arms and comparisons -> tables, and tables -> markdown, LaTeX, csv, JSON and the terminal."""
