"""Pixel-SAIL: images with one transformer, without a vision encoder and without SAM (arXiv:2504.10465)."""
