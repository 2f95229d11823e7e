"""Faster tracking on a GPU: compiled steps for fixed numbers of objects."""
