"""From data to scales: observers, and the passes over calibration images that feed them."""
