"""How a training run starts: what is checked before anything costs, in which order."""
