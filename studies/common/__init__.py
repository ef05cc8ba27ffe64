"""What the studies share: their subjects, runs already made, tables, and how a study begins."""
