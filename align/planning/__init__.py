"""Planning: what a run will cost, from its configuration alone. No weights are read and nothing is computed."""
