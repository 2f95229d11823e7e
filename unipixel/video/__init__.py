"""Video, image and live sources, read one frame at a time."""
