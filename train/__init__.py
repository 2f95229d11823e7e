"""Data sets, training and evaluation. Layers 1 and 2 do not import it."""
