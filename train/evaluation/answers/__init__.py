"""Scores of text answers: chosen options, captions, and descriptions that a judge marks."""
