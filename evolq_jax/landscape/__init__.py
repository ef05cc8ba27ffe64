"""The loss over scale space: directions, lines, planes, layer scans, and numbers for jaggedness."""
