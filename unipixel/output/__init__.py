"""Overlays, mask files, and the result document."""
