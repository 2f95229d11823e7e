"""Data sets, training and evaluation. Never imported by the floors below."""
