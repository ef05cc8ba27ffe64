"""What the studies share: subjects, finished runs, tables, and the options of their commands."""
