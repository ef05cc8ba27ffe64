"""The verb `compare`: several methods with the same seeds and budget."""
