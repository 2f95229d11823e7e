"""Published training sets: their table, their annotation files read lazily, and samples of their entries."""
