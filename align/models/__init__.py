"""Model families, loading, and adapters."""
