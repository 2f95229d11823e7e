"""Annotation formats of the sets that Pixel-SAIL adds: panoptic labels, and texts with a mask per phrase."""
