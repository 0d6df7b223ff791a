"""What of a run is published: its model card, its curves on Weights & Biases."""
