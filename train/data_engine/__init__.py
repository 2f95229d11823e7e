"""Region captions and questions written and checked by large multimodal models (Pixel-SAIL, arXiv:2504.10465)."""
