"""From files to batches: sources read rows, views decide what a model sees of them, rendering and collation make tensors."""
