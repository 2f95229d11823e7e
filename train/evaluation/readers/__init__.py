"""Readers of benchmarks: one module for each annotation format."""
