"""Running a model on benchmarks: predictions, resumption, shards, submissions."""
