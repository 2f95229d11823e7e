"""The UniPixel model: Qwen2.5-VL, SAM 2.1, and the connector between them."""
