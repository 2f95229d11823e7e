"""Rendering of synthetic clips: shapes, textures, backgrounds, occlusion."""
