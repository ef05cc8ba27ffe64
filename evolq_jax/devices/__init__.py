"""Devices: the mesh and where arrays lie, several hosts, precision, memory, compiled programs."""
