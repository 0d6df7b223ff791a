"""From run folders alone to tables and figures."""
