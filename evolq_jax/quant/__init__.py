"""Quantizers, the specification of which site gets which, and the three readings of a network's sites."""
