"""Models that answer: loaded here, or behind an endpoint, and where their responses are kept."""
