"""The pictures of a scan, drawn from its arrays."""
