"""Devices: the mesh and what lies where, several hosts, precision, memory, compiled programs."""
