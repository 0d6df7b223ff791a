"""Model loading, processors, adapters, and what a run trains."""
