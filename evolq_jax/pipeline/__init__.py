"""From a config to a network with scales and scores."""
