"""SAM 2.1 on videos: segmentation, memory and tracking of objects, without a language model."""
