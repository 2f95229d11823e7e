"""Training of Pixel-SAIL."""
