"""SAM 2.1 over time: segmenting, remembering and following objects. Knows no language model."""
