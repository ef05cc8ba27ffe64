"""The version, in a file of its own: lower layers record it, and import nothing above them."""

__version__ = "0.1.0"
