"""Observers: from data to ranges, from ranges to scales."""
