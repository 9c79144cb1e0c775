"""Plans as people write them: what their short forms stand for."""
