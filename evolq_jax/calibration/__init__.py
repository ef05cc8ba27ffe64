"""From data to scales: the chain of links, observers, and block reconstruction."""
