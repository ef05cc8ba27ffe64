"""Networks as algorithms see them: segments of stacked blocks, run whole or in part."""
