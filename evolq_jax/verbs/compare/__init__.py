"""The verb `compare`: methods over seeds at one budget."""
