"""The loss over scale space: directions, lines, planes and layer scans, and how jagged it is."""
