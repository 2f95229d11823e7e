"""Annotation formats of published training sets, one module each."""
