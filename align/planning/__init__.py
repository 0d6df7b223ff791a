"""Planning: estimate the cost of a run from its configuration, without weights or computation."""
