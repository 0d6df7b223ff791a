"""Models that write responses, on this machine or behind an endpoint, and the cache of responses."""
