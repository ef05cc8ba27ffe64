"""The verbs: calibrate, search, evaluate, train. The only layer that joins models, data and algorithms."""
