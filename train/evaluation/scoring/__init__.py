"""Metrics of benchmarks as pure functions of the truth and the predictions."""
