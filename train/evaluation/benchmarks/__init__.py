"""Published benchmarks as rows of one table."""
