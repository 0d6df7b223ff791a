"""From files to rows: sources read rows, and views decide what a model sees of each row."""
