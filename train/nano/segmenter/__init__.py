"""Training of the bundled model's segmenter on synthetic clips with prompted objects."""
