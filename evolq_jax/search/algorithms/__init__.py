"""Search algorithms: ours, one file each, and those of evosax."""
